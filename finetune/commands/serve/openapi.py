"""What the OpenAPI document says of the requests and answers, which no signature tells."""

from typing import Any

_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
_ANSWER = {
    "type": "object",
    "description": "The answer for one image, with the keys of `finetune predict --json`.",
    "required": ["image", "predictions", "certainty", "unlike", "error"],
    "properties": {
        "image": {"type": "string", "description": "the name that it was sent with"},
        "labels": {
            "type": "array",
            "items": {"type": "string"},
            "description": "the classes that it has, of a model of several labels",
        },
        "predictions": {
            "type": "array",
            "description": "the most probable classes, most probable first",
            "items": {
                "type": "object",
                "required": ["class", "probability"],
                "properties": {
                    "class": {"type": "string"},
                    "probability": _PROBABILITY,
                    "threshold": _PROBABILITY,
                },
            },
        },
        "certainty": {**_PROBABILITY, "nullable": True, "description": "the probability of the answer"},
        "unlike": {
            "type": "boolean",
            "nullable": True,
            "description": "whether it is unlike all that the model was trained on",
        },
        "unsure": {"type": "boolean", "nullable": True, "description": "whether certainty is below `unsure`"},
        "error": {"type": "string", "nullable": True, "description": "why it cannot be read"},
        "explanation": {
            "type": "object",
            "nullable": True,
            "description": "with `explain`: where the image holds what speaks for the most probable class",
            "required": ["class", "box", "heat"],
            "properties": {
                "class": {"type": "string"},
                "box": {
                    "type": "array",
                    "items": _PROBABILITY,
                    "minItems": 4,
                    "maxItems": 4,
                    "description": "the part that the heat covers: left, top, right, bottom",
                },
                "heat": {"type": "array", "items": {"type": "array", "items": _PROBABILITY}},
            },
        },
    },
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}, "images": {"type": "array", "items": _ANSWER}},
}
_METADATA = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "null"]},
    "description": "what the model takes beside an image, by column",
}
_SETTINGS = {
    "top_k": {"type": "integer", "minimum": 1, "description": "classes of each answer"},
    "unsure": {**_PROBABILITY, "description": "mark answers with a lower certainty"},
    "explain": {"type": "boolean", "description": "add what speaks for the most probable class (Grad-CAM)"},
}
_IMAGE = {
    "oneOf": [
        {"type": "string", "format": "byte"},
        {
            "type": "object",
            "required": ["data"],
            "properties": {
                "name": {"type": "string"},
                "data": {"type": "string", "format": "byte"},
                "metadata": _METADATA,
            },
        },
    ]
}
_FORM = {
    "type": "object",
    "properties": {
        "images": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "metadata": {"type": "string", "description": "JSON, by column"},
        **_SETTINGS,
    },
}
_JSON = {
    "type": "object",
    "required": ["images"],
    "properties": {"images": {"type": "array", "items": _IMAGE}, "metadata": _METADATA, **_SETTINGS},
}
_REASONS = {
    400: "No image, or not what its type says",
    403: "Another host, or a page of another site",
    408: "The request took too long to arrive",
    413: "Too many bytes or images",
    415: "Another content type",
    503: "Too much at once; try again",
}


def _content(schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    return {"content": {kind: {"schema": schema}}}


PREDICT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **_content(_FORM, "multipart/form-data")["content"],
            **_content(_JSON)["content"],
            **_content({"type": "string", "format": "binary"}, "image/*")["content"],
        },
    },
    "parameters": [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in _SETTINGS.items()
    ],
    "responses": {
        "200": {"description": "An answer for each image", **_content({"type": "array", "items": _ANSWER})},
        **{str(status): {"description": text, **_content(_ERROR)} for status, text in _REASONS.items()},
    },
}
