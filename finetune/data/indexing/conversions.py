"""Lines of Python that write the images in files of other programs as PNG files, in a folder for each class.

They are shown and never run here. Each takes the names of its files in the current folder, and what the
program itself does not need (torchvision, which is installed with it, apart): `pydicom` is named where it is.
"""

import re
import shlex

from finetune.text import printable


def _writing(folders: str, image: str, name: str, loop: str) -> str:
    """Return code that saves the image of each turn of a loop, in folders that expressions say."""
    folder = f"os.path.join('png',*map(str,({folders},)))"
    return f"[os.makedirs(d:={folder},exist_ok=True) or {image}.save(f'{{d}}/{name}.png') {loop}]"


_IDX = (
    "import glob,gzip,os,numpy as n;from PIL import Image;"
    "r=lambda f:(gzip.open if f.endswith('gz') else open)(f,'rb').read();"
) + _writing(
    "'test' if 't10k' in f else 'train',c",
    "Image.fromarray(a)",
    "{i}",
    "for f in glob.glob('*images*idx3*') for b in [r(f)] for i,(a,c) in enumerate(zip("
    "n.frombuffer(b,'u1',-1,16).reshape(n.frombuffer(b,'>i4',3,4)),"
    "r(f.replace('images','labels').replace('idx3','idx1'))[8:]))",
)
_CIFAR = "import os;from torchvision.datasets import KIND as D;" + _writing(
    "s,x.classes[c]",
    "a",
    "{i}",
    "for s in ('train','test') for x in [D('..',s=='train')] for i,(a,c) in enumerate(x)",
)
_CIFAR_BINARY = (
    "import glob,os,numpy as n;from PIL import Image;k=open('batches.meta.txt').read().split();"
) + _writing(
    "'test' if f[0]=='t' else 'train',k[r[0]]",
    "Image.fromarray(r[1:].reshape(3,32,32).transpose(1,2,0))",
    "{f[:-4]}_{i}",
    "for f in glob.glob('*_batch*.bin') for i,r in enumerate(n.fromfile(f,'u1').reshape(-1,3073))",
)
_DICOM = (
    "import pathlib,pydicom,numpy as n;from PIL import Image;"
    "[Image.fromarray(n.uint8(255*(a-a.min())/max(1,a.max()-a.min()))).save(f.with_suffix('.png')) "
    "for f in pathlib.Path('.').rglob('*.dcm') for a in [pydicom.dcmread(f).pixel_array.astype(float)]]"
)
_FLOWERS = (
    "import scipy.io as s;m=s.loadmat('setid.mat');"
    "t={i:w for k,w in (('trnid','train'),('valid','val'),('tstid','test')) for i in m[k][0]};"
    "print('image,label,split',*(f'jpg/image_{i:05}.jpg,{c},{t[i]}' "
    "for i,c in enumerate(s.loadmat('imagelabels.mat')['labels'][0],1)),sep=chr(10))"
)
_PIXEL_COLUMNS = "import csv,os,numpy as n;from PIL import Image;" + _writing(
    "r.pop(LABEL)",
    "Image.fromarray(n.array(r,dtype=float).astype('u1').reshape(SHAPE))",
    "{i}",
    "for i,r in enumerate(csv.reader(open(FILE))) if i>=FIRST",
)
_PIXEL_CELLS = (
    "import csv,os,numpy as n;from PIL import Image;"
    "t=dict(Training='train',PublicTest='val',PrivateTest='test');"
) + _writing(
    "t.get(r.get('Usage'),''),r[LABEL]",
    "Image.fromarray(n.array(r[PIXELS].split(),dtype='u1').reshape(SHAPE))",
    "{i}",
    "for i,r in enumerate(csv.DictReader(open(FILE)))",
)


def idx_command() -> str:
    """Return what writes the IDX files of MNIST and its like as images."""
    return _command(_IDX)


def cifar_command(kind: str) -> str:
    """Return what writes CIFAR as images; `kind` is the class of torchvision that reads it."""
    return _command(_CIFAR.replace("KIND", kind))


def cifar_binary_command() -> str:
    """Return what writes the binary version of CIFAR-10 as images."""
    return _command(_CIFAR_BINARY)


def dicom_command() -> str:
    """Return what writes a PNG file beside each DICOM file, in the range of its own pixels."""
    return f"pip install pydicom && {_command(_DICOM)}"


def flowers_command() -> str:
    """Return what writes the labels and splits of the Oxford flowers as a table."""
    return f"{_command(_FLOWERS)} > labels.csv"


def pixel_columns_command(file: str, label: int, shape: tuple[int, ...], *, headed: bool) -> str:
    """Return what writes a table with a column for each pixel as images; `label` is where theirs is."""
    return _command(_filled(_PIXEL_COLUMNS, FILE=file, LABEL=label, SHAPE=shape, FIRST=int(headed)))


def pixel_cells_command(file: str, label: str, pixels: str, shape: tuple[int, ...]) -> str:
    """Return what writes a table with a cell of all pixels in each row as images."""
    return _command(_filled(_PIXEL_CELLS, FILE=file, LABEL=label, PIXELS=pixels, SHAPE=shape))


def _filled(code: str, **values: object) -> str:
    return re.sub(r"\b[A-Z]{4,}\b", lambda name: repr(values[name[0]]), code)


def _command(code: str) -> str:
    quotable = re.search(r'["$`\\!]', code) is None
    return printable(f'python -c "{code}"' if quotable else f"python -c {shlex.quote(code)}")
