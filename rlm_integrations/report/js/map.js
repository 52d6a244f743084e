// A strip for each source of the document: what was read, how often, and what was never read.

const MAX_STEPS = 5; // of the colour: read this often, or more often
const SHOWN_READERS = 12; // calls that are named of those that read a part
const strips = [];

/** The spans of all readings by source, in the order of their start. */
let readingsBySource;
derive(() => (readingsBySource = readingsOf()));

function readingsOf() {
  const found = run.sources.map(() => []);
  for (const [kind, number, source, start, end] of reading.readings) {
    found[source].push({ name: `${kind}-${number}`, start, end });
  }
  return found;
}

const unreadOf = (parts) =>
  parts.reduce((sum, [start, end, times]) => sum + (times ? 0 : end - start), 0);

class Strip {
  constructor(source, number) {
    Object.assign(this, { source, number, parts: reading.sources[number], at: 0, marked: [] });
    this.canvas = make("canvas", { class: "strip", height: "1", width: "1" });
    this.cursor = make("span", { class: "cursor" });
    this.box = make(
      "div",
      {
        class: "track",
        role: "slider",
        tabindex: "0",
        "aria-label": `Parts of ${oneLine(sourceLabel(source), 80)}`,
        "aria-valuenow": "0",
        "aria-valuemin": "0",
        "aria-valuemax": String(source.length),
        onclick: (event) => this.onclick(event),
        onkeydown: (event) => this.onkey(event),
      },
      this.canvas,
      this.cursor,
    );
    this.pins = make("div", { class: "pins" });
    run.citations.forEach((citation, at) => {
      if (citation.source !== source.name) return;
      const pin = make(
        "a",
        { class: "pin", href: `#citation-${at + 1}`, "aria-label": `Citation ${at + 1}` },
        String(at + 1),
      );
      pin.style.left = `${(citation.start / Math.max(1, source.length)) * 100}%`;
      this.pins.append(pin);
    });
    this.say();
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  /** Each column shows the share of its characters that was read, in the colour of how often. */
  draw() {
    const scale = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(this.box.clientWidth * scale));
    const height = Math.round(this.box.clientHeight * scale) || 1;
    Object.assign(this.canvas, { width, height });
    const paint = this.canvas.getContext("2d");
    const style = getComputedStyle(this.box);
    const unread = style.getPropertyValue("--unread");
    const colours = Array.from({ length: MAX_STEPS }, (_, at) =>
      style.getPropertyValue(`--read-${at + 1}`),
    );
    paint.fillStyle = unread;
    paint.fillRect(0, 0, width, height);
    const each = this.source.length / width;
    let at = 0;
    for (let x = 0; x < width && this.source.length; x++) {
      const [from, to] = [x * each, (x + 1) * each];
      while (at < this.parts.length && this.parts[at][1] <= from) at++;
      let read = 0;
      let times = 0;
      for (let next = at; next < this.parts.length && this.parts[next][0] < to; next++) {
        const [start, end, often] = this.parts[next];
        if (!often) continue;
        read += Math.min(end, to) - Math.max(start, from);
        times = Math.max(times, often);
      }
      if (!times) continue;
      paint.fillStyle = colours[Math.min(times, MAX_STEPS) - 1];
      const tall = Math.max(1, Math.round((read / each) * height));
      paint.fillRect(x, height - tall, 1, tall);
    }
    paint.fillStyle = style.getPropertyValue("--ink");
    for (const span of this.marked) {
      paint.fillRect(
        Math.floor(span.start / each),
        0,
        Math.max(2 * scale, (span.end - span.start) / each),
        3 * scale,
      );
    }
  }

  partAt(place) {
    return Math.max(
      0,
      this.parts.findIndex(([start, end]) => place >= start && place < end),
    );
  }

  /** Make a part the current one, and say what read it. */
  go(part, place = null) {
    if (!this.parts.length) return;
    this.at = Math.max(0, Math.min(part, this.parts.length - 1));
    this.place = place ?? this.parts[this.at][0];
    this.say();
    const [start, end, times] = this.parts[this.at];
    const names = readingsBySource[this.number]
      .filter((each) => each.start < end && each.end > start)
      .map((each) => each.name);
    const unique = [...new Set(names)];
    map.readers.replaceChildren(
      make(
        "p",
        {},
        foreign(sourceLabel(this.source)),
        `, characters ${count(start)} to ${count(end)}: `,
        times ? `read in ${plural(times, "prompt")}.` : make("strong", {}, "never read."),
      ),
      make("ul", { class: "plain" }, unique.slice(0, SHOWN_READERS).map(readerItem)),
      unique.length > SHOWN_READERS
        ? make("p", { class: "muted" }, `and ${count(unique.length - SHOWN_READERS)} more`)
        : "",
    );
  }

  goToPlace(place) {
    this.go(this.partAt(place), Math.max(0, Math.min(place, this.source.length - 1)));
  }

  say() {
    if (!this.parts.length) return;
    const [start, end, times] = this.parts[this.at];
    const place = this.place ?? start;
    this.box.setAttribute("aria-valuenow", String(place));
    this.box.setAttribute(
      "aria-valuetext",
      `characters ${count(start)} to ${count(end)}, ` +
        (times ? `read in ${plural(times, "prompt")}` : "never read"),
    );
    this.cursor.style.left = `${(place / Math.max(1, this.source.length)) * 100}%`;
  }

  open() {
    const [start, end, times] = this.parts[this.at];
    const from = this.place ?? start;
    openText(
      this.source.name,
      from,
      Math.min(end, from + 1),
      times ? [] : [{ source: this.source.name, start, end }],
    );
  }

  onclick(event) {
    const box = this.box.getBoundingClientRect();
    const place = Math.floor(((event.clientX - box.left) / box.width) * this.source.length);
    this.goToPlace(place);
    this.open();
  }

  onkey(event) {
    const steps = {
      ArrowRight: this.at + 1,
      ArrowDown: this.at + 1,
      ArrowLeft: this.at - 1,
      ArrowUp: this.at - 1,
      Home: 0,
      End: this.parts.length - 1,
    };
    if (event.key in steps) this.go(steps[event.key]);
    else if (event.key === "Enter" && this.parts.length) this.open();
    else return;
    event.preventDefault();
  }
}

const map = { readers: null };

/** A call that read a part, with what it answered. */
function readerItem(name) {
  const row = rowOf.get(name);
  return make(
    "li",
    {},
    link(name, row ? textNodes(`${row.label} (${name})`) : name),
    row ? foreign(snippet(row), "div", { class: "muted" }) : null,
  );
}

/** Mark these spans on the strips, and no others. */
function markOnMaps(spans) {
  for (const strip of strips) {
    const before = strip.marked.length;
    strip.marked = spans.filter((span) => span.source === strip.source.name);
    if (before || strip.marked.length) strip.draw();
  }
}

function sourceItem(source, number) {
  const strip = new Strip(source, number);
  strips.push(strip);
  const unread = unreadOf(strip.parts);
  const parts = strip.parts.filter(([, , times]) => !times).length;
  return make(
    "li",
    {},
    make(
      "div",
      { class: "source" },
      foreign(sourceLabel(source), "b"),
      make(
        "span",
        { class: "muted" },
        sourceLabel(source) === source.name ? " " : ` ${source.name} · `,
        `${plural(source.length, "character")} · `,
        `read ${percent(source.length - unread, source.length)}`,
      ),
      unread
        ? make(
            "span",
            { class: "unread" },
            ` · never read: ${plural(unread, "character")} in ${plural(parts, "part")}`,
          )
        : null,
    ),
    strip.pins,
    strip.box,
  );
}

function mapSection() {
  if (!run.sources.length)
    return section(
      "document",
      "Document",
      make("p", { class: "muted" }, "The record does not name its documents."),
    );
  map.readers = make(
    "div",
    { class: "readers", role: "status" },
    make(
      "p",
      { class: "muted" },
      "Choose a place on a strip, a citation or an object to see the text and which calls read it.",
    ),
  );
  const total = run.sources.reduce((sum, source) => sum + source.length, 0);
  const unread = reading.sources.reduce((sum, parts) => sum + unreadOf(parts), 0);
  const legend = Array.from({ length: MAX_STEPS }, (_, at) =>
    make(
      "span",
      { class: "legend" },
      make("span", { class: `swatch read-${at + 1}` }),
      at + 1 === MAX_STEPS ? `${at + 1} or more times` : at ? `${at + 1} times` : "read once",
    ),
  );
  return section(
    "document",
    "Document",
    make(
      "p",
      {},
      `${isRunning() ? "So far in" : "In"} the recorded prompts: ${percent(total - unread, total)} of ${plural(total, "character")}. `,
      unread
        ? make("strong", {}, `${count(unread)} characters were never read.`)
        : "Everything was read.",
    ),
    make(
      "p",
      { class: "muted small" },
      make("span", { class: "legend" }, make("span", { class: "swatch never" }), "never read"),
      legend,
      make("span", { class: "keys" }, "Keys on a strip: ← → parts, Enter the text."),
    ),
    make("ul", { class: "sources" }, run.sources.map(sourceItem)),
    make("div", { class: "text-and-readers" }, map.readers, readerBox()),
  );
}
