# Step 3 of 3: rank the quotes, keep those that are in the document, and finish.
def held_by(quote):
    text = fold(quote)
    return {stem for stem in words if re.search(rf"(?<![a-z0-9]){re.escape(stem)}", text)}


lines = (line for reply in replies for line in reply.splitlines())
quotes = list(dict.fromkeys(line[2:].strip() for line in lines if line.startswith("- ")))
whole = sum_weights(words) or 1
shares = {quote: sum_weights(held_by(quote)) / whole for quote in quotes}
best = max(shares.values(), default=0)
kept, covered = [], set()
for quote in sorted(quotes, key=lambda quote: -shares[quote]):
    new = held_by(quote) - covered  # a second quote may answer the other half of the question
    is_close = shares[quote] >= min_share * best
    if not words or is_close or (shares[quote] >= 0.6 * best and new & names):
        kept.append(quote)
        covered |= held_by(quote)

kept = sorted(kept[:max_quotes], key=quotes.index)
evidence = {quote: span for quote in kept if (span := cite(quote))}
missing = [words[stem] for stem in words if stem not in covered]
share = sum_weights(covered) / whole
notes = []
if kept and not evidence:
    notes.append("what was quoted is not in the document")
if failed:
    notes.append(f"{len(failed)} of {len(replies)} parts could not be read: {failed[0]}")
if len(asked) < len(worth):
    notes.append(f"read closely: {len(asked)} of {len(worth)} parts that may matter")
if evidence and not words:
    notes.append("the question has no word to search for: these are opening sentences")
if not evidence or (words and (share < 0.5 or (names and not names & covered))):
    absent = [words[stem] for stem, count in counts.items() if not count]
    if absent:
        notes.append("not in the document at all: " + ", ".join(absent))
    evidence = {}
elif missing and (share < 0.75 or names - covered):
    notes.append("nothing found with: " + ", ".join(missing))
if "store" in globals():
    for quote, span in evidence.items():
        store.create("quote", quote[:100], quote, [span])
nothing = "Nothing in the document answers this, as far as a search for its words can tell."
lines = [*(evidence or [nothing]), *(f"({note})" for note in notes)]
FINAL("\n".join(lines), evidence=list(evidence.values()))
