# Step 2 of 3: ask about the parts that were not read, too.
rest = [at for at in range(len(chunks)) if at not in asked]
passages = [text_of(chunks[at]) for at in rest]
if not rest:  # of these parts, only pieces are missing
    keys = context if hasattr(context, "values") else map("context_{}".format, range(len(sources)))
    by_name = dict(zip(keys, sources, strict=True))
    passages = [  # with a mark, or a repeated text after a line end may seem to be another place
        "¶" + by_name[name][at : min(at + size, end)]
        for name, start, end in unread
        if name in by_name
        for at in range(start, end, size)
    ]
replies += llm_batch([f"{ask}\n\nQuestion: {question}\n\nPassage:\n{text}" for text in passages])
asked = sorted([*asked, *rest])
failed = [reply for reply in replies if reply.startswith("Error:")]
print(len(passages), "more passage(s) read,", len(failed), "failed in all:", *failed[:1])
print("Step 2 of 3 is done.")
