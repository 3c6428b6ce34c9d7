PADDING, START, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
