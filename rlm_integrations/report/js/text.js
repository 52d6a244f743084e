// The text of the document, if the page has it. Offsets are code points; JavaScript's are not.

const STRIDE = 4096; // code points between two known places
const SHOWN_CHARS = 6000; // of a source, around the place that was asked for
const texts = new Map(); // by source: the text, and the index of each STRIDE-th code point

function loadText(source) {
  if (!texts.has(source)) {
    const text = data(`text-${source}`);
    texts.set(
      source,
      text === null ? null : { text, marks: /[\ud800-\udfff]/.test(text) ? marksOf(text) : null },
    );
  }
  return texts.get(source);
}

function marksOf(text) {
  const marks = [];
  let points = 0;
  for (let at = 0; at < text.length; points++) {
    if (points % STRIDE === 0) marks.push(at);
    at += isPair(text, at) ? 2 : 1;
  }
  return marks;
}

const isPair = (text, at) =>
  (text.charCodeAt(at) & 0xfc00) === 0xd800 && (text.charCodeAt(at + 1) & 0xfc00) === 0xdc00;

/** The index in JavaScript's string of a code point. */
function indexOf({ text, marks }, point) {
  if (!marks) return point;
  let at = marks[Math.min(Math.floor(point / STRIDE), marks.length - 1)] ?? 0;
  for (
    let left = point - Math.min(Math.floor(point / STRIDE), Math.max(0, marks.length - 1)) * STRIDE;
    left > 0 && at < text.length;
    left--
  ) {
    at += isPair(text, at) ? 2 : 1;
  }
  return at;
}

/** Characters of a source, or null without the document; of a long part only its two ends. */
function textOf(source, start, end, most = Infinity) {
  const known = sourceOf.has(source) ? loadText(source) : null;
  if (!known) return null;
  const slice = (from, to) => known.text.slice(indexOf(known, from), indexOf(known, to));
  if (end - start <= 2 * most) return slice(start, end);
  const between = `[… ${count(end - start - 2 * most)} characters …]`;
  return [slice(start, start + most), between, slice(end - most, end)].join("\n");
}

const reader = { source: null, from: 0, to: 0, spans: [] };

/** Show a place of a source, with these spans marked. */
function openText(source, start, end, spans) {
  if (!sourceOf.has(source)) return;
  const length = sourceOf.get(source).length;
  reader.box.hidden = false;
  reader.source = source;
  reader.spans = spans;
  reader.from = Math.max(0, start - Math.floor(SHOWN_CHARS / 4));
  reader.to = Math.min(
    length,
    Math.max(reader.from + SHOWN_CHARS, Math.min(end + 500, start + SHOWN_CHARS)),
  );
  drawText();
  const mark = reader.body.querySelector("mark.chosen");
  if (mark) mark.scrollIntoView({ block: "nearest" });
}

function moveText(by) {
  const length = sourceOf.get(reader.source).length;
  const size = Math.min(SHOWN_CHARS, length);
  reader.from = Math.max(0, Math.min(reader.from + by * size, length - size));
  reader.to = Math.min(length, reader.from + size);
  drawText();
  reader.body.scrollTop = by > 0 ? 0 : reader.body.scrollHeight;
}

function drawText() {
  const { source, from, to, spans } = reader;
  const info = sourceOf.get(source);
  reader.title.replaceChildren(
    foreign(sourceLabel(info)),
    `, characters ${count(from)} to ${count(to)} of ${count(info.length)}`,
  );
  reader.earlier.disabled = from <= 0;
  reader.later.disabled = to >= info.length;
  if (loadText(source) === null) {
    const places = spans.map((span) => make("li", {}, placeText(span)));
    reader.body.replaceChildren(
      make(
        "p",
        { class: "muted" },
        "This page was made without the document's text: pass it to to_html(path, context=…), ",
        "or to the command report with --document.",
      ),
      make("ul", {}, places),
    );
    return;
  }
  const cited = run.citations
    .map((each, at) => ({ ...each, number: at + 1 }))
    .filter((each) => each.source === source);
  const cuts = new Set([from, to]);
  for (const each of [...spans.filter((span) => span.source === source), ...cited]) {
    for (const place of [each.start, each.end]) if (place > from && place < to) cuts.add(place);
  }
  const places = [...cuts].sort((a, b) => a - b);
  const nodes = places.slice(0, -1).map((start, at) => {
    const end = places[at + 1];
    const holds = (each) => each.start <= start && each.end >= end;
    const isChosen = spans.some((span) => span.source === source && holds(span));
    const numbers = cited.filter(holds).map((each) => each.number);
    const text = textNodes(textOf(source, start, end));
    if (!isChosen && !numbers.length) return text;
    const kinds = [isChosen ? "chosen" : "", numbers.length ? "cited" : ""].join(" ").trim();
    const ends = cited
      .filter((each) => holds(each) && each.end === end)
      .map((each) => citationLink(each.number));
    return [make("mark", { class: kinds }, text), ends];
  });
  reader.body.replaceChildren(...nodes.flat(3));
}

function readerBox() {
  reader.title = make("p", { class: "muted", role: "status" });
  reader.earlier = button("Earlier", () => moveText(-1), { disabled: true });
  reader.later = button("Later", () => moveText(1), { disabled: true });
  reader.body = make("div", {
    class: "reader",
    dir: "auto",
    tabindex: "0",
    role: "region",
    "aria-label": "Text of the document",
  });
  reader.box = make(
    "div",
    { class: "reading", hidden: true },
    make(
      "div",
      { class: "tools" },
      reader.title,
      make("span", { class: "group" }, reader.earlier, reader.later),
    ),
    reader.body,
  );
  return reader.box;
}
