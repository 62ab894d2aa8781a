"""`finetune report`, and the pages that training and evaluation leave."""
