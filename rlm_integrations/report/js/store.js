// The objects of the store, in the order of their creation.

const OBJECT_HEIGHT = 28;

/** The objects after all events of the store, by id. */
let objects, writers;
derive(() => {
  objects = readObjects();
  writers = readWriters();
});

function readObjects() {
  const found = new Map();
  for (const event of run.store?.events ?? []) {
    if (event.op === "create") {
      found.set(event.id, { ...event, number: found.size, invalid: null, links: [], children: [] });
    } else if (event.op === "invalidate" && found.has(event.id)) {
      found.get(event.id).invalid = event.reason;
    } else if (event.op === "link" && found.has(event.id)) {
      found.get(event.id).links.push([event.type, event.dst]);
    }
  }
  for (const object of found.values()) {
    for (const parent of object.parents) found.get(parent)?.children.push(object.id);
  }
  return found;
}

const store = { all: [], shown: [], selected: null };
derive(() => (store.all = [...objects.values()]));

/** The blocks that wrote each object. */
function readWriters() {
  const found = new Map();
  for (const row of rows) {
    if (row.kind !== "block") continue;
    for (const event of row.item.store_events) if (event.op === "create") found.set(event.id, row);
  }
  return found;
}

function chooseObjects() {
  const words = store.searchBox.value.trim().toLowerCase();
  const says = (object) => {
    object.words ??= [
      object.id,
      object.type,
      object.description,
      object.worker,
      ...object.tags,
      JSON.stringify(object.content),
    ]
      .join("\n")
      .toLowerCase();
    return object.words.includes(words);
  };
  store.shown = words ? store.all.filter(says) : store.all;
  store.status.textContent = words
    ? `${count(store.shown.length)} of ${plural(store.all.length, "object")}`
    : plural(store.all.length, "object");
  store.list.show(store.shown.length, Math.max(0, store.shown.indexOf(store.selected)));
}

function drawObject(at, isActive) {
  const object = store.shown[at];
  const parents = object.parents.length ? cut(object.parents.join(", "), 80) : "—";
  const marks = [object.invalid === null ? null : "invalid"];
  return gridRow(`stored-${object.number}`, at, isActive, marks, [
    gridCell("number", count(object.number + 1)),
    gridCell("type", foreign(object.type)),
    gridCell("label", foreign(oneLine(object.description, 160))),
    gridCell("worker", foreign(object.worker)),
    gridCell("parents", textNodes(parents)),
  ]);
}

const objectLink = (id) => (objects.has(id) ? link(`object-${id}`, foreign(id)) : foreign(id));
const objectLinks = (ids) =>
  ids.length ? ids.slice(0, 100).map((id, at) => [at ? ", " : "", objectLink(id)]) : "none";

function objectDetail(object) {
  const writer = writers.get(object.id);
  const content =
    typeof object.content === "string" ? object.content : JSON.stringify(object.content, null, 2);
  return [
    object.invalid === null
      ? null
      : make("p", { class: "error" }, "Invalidated: ", foreign(object.invalid)),
    facts([
      ["id", foreign(object.id)],
      ["type", foreign(object.type)],
      ["author", foreign(object.worker)],
      [
        "written by",
        writer ? link(writer.name, textNodes(`${writer.label} (${writer.name})`)) : "unknown",
      ],
      ["parents", objectLinks(object.parents)],
      ["children", objectLinks(object.children)],
      ["tags", object.tags.length ? foreign(object.tags.join(", ")) : "none"],
      ...(object.links.length
        ? [["links", object.links.map(([word, id]) => [word, " ", objectLink(id), " "])]]
        : []),
    ]),
    foreign(object.description, "p"),
    pre(cut(content ?? "null", 100_000)),
    object.backrefs.length
      ? make(
          "ul",
          { class: "plain" },
          object.backrefs.map((span) =>
            make("li", {}, link(`text-${span.source}-${span.start}-${span.end}`, placeText(span))),
          ),
        )
      : make("p", { class: "muted" }, "It refers to no part of the document."),
  ];
}

/** Select an object: details, its place in list and graph, and its spans in the document. */
function openObject(object, { isMove = false } = {}) {
  store.selected = object;
  if (!store.shown.includes(object)) {
    store.searchBox.value = "";
    chooseObjects();
  }
  store.list.move(store.shown.indexOf(object));
  store.body.replaceChildren(...objectDetail(object).filter(Boolean));
  drawGraph(object);
  const spans = object.backrefs.filter((span) => sourceOf.has(span.source));
  if (spans.length) {
    openText(spans[0].source, spans[0].start, spans[0].end, spans);
    strips[sourceOf.get(spans[0].source).number].goToPlace(spans[0].start);
  }
  markOnMaps(spans);
  remember(`object-${object.id}`, isMove);
}

function storeSection() {
  if (!run.store) {
    return section(
      "store",
      "Store",
      make(
        "p",
        { class: "muted" },
        run.options.store_mode === "none" ? "This run had no store." : "The record has no store.",
      ),
    );
  }
  if (!store.all.length)
    return section(
      "store",
      "Store",
      make("p", { class: "muted" }, "Nothing was written to the store."),
    );
  store.status = make("span", { class: "muted", role: "status" });
  store.searchBox = make("input", {
    type: "search",
    id: "store-search",
    placeholder: "id, type, words …",
    oninput: chooseObjects,
  });
  const heads = [
    ["number", "No."],
    ["type", "Type"],
    ["label", "Description"],
    ["worker", "Author"],
    ["parents", "Parents"],
  ];
  store.body = make(
    "div",
    { id: "object", role: "region", "aria-label": "The selected object", tabindex: "-1" },
    make("p", { class: "muted hint" }, "Select an object: its parts of the document are marked below."),
  );
  store.list = gridOf("objects", "Objects of the store", heads, {
    height: OBJECT_HEIGHT,
    draw: drawObject,
    onmove: (at) => openObject(store.shown[at], { isMove: true }),
    onenter: () => store.body.focus(),
  });
  return section(
    "store",
    "Store",
    make(
      "div",
      { class: "tools" },
      make("label", { for: "store-search" }, "Search "),
      store.searchBox,
      store.status,
    ),
    make("div", { class: "pair" }, make("div", {}, store.list.box, graphBox()), store.body),
  );
}
