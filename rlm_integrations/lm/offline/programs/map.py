# Step 2 of 3: ask about the chunks in which the question's words are close together, all at once.
strength = [max(map(sum_weights, sets)) for sets in together]
ranked = sorted(range(len(chunks)), key=lambda at: -strength[at])
worth = [at for at in ranked if len(chunks) <= 8 or strength[at] >= 0.6 * strength[ranked[0]]]
# Without words to search for, a sample.
asked = sorted(worth[:max_chunks] if words else worth[:: -(-len(worth) // max_chunks)])
prompts = [f"{ask}\n\nQuestion: {question}\n\nPassage:\n{text_of(chunks[at])}" for at in asked]
replies = llm_batch(prompts)
failed = [reply for reply in replies if reply.startswith("Error:")]
print(len(asked), "chunk(s) read,", len(failed), "failed:", *failed[:1])
print("Step 2 of 3 is done.")
