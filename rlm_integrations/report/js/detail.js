// The selected turn, block or call: what the model saw, what it answered, and what the code did.

const SHOWN_SPAN_CHARS = 1500; // of a part of the document inside a prompt, at each of its ends
const SHOWN_CALLS = 50; // sub-calls that a block lists

const KEYWORDS =
  "and|as|assert|async|await|break|class|continue|def|del|elif|else|except|finally|for|from|" +
  "global|if|import|in|is|lambda|nonlocal|not|or|pass|raise|return|try|while|with|yield|None|True|False";
const STRINGS = [
  /"""[\s\S]*?"""/,
  /'''[\s\S]*?'''/,
  /"(?:\\.|[^"\\\n])*"/,
  /'(?:\\.|[^'\\\n])*'/,
].map((pattern) => pattern.source);
const PYTHON = new RegExp(`(#[^\\n]*)|(${STRINGS.join("|")})|\\b(${KEYWORDS})\\b`, "g");
const MAX_COLOURED_CHARS = 50_000;

/** Python code with its comments, strings and keywords marked. */
function code(text) {
  const nodes = [];
  let done = 0;
  for (const found of text.length > MAX_COLOURED_CHARS ? [] : text.matchAll(PYTHON)) {
    nodes.push(textNodes(text.slice(done, found.index)));
    const kind = found[1] ? "comment" : found[2] ? "string" : "keyword";
    nodes.push(make("span", { class: kind }, textNodes(found[0])));
    done = found.index + found[0].length;
  }
  nodes.push(textNodes(text.slice(done)));
  return make("pre", { class: "code", tabindex: "0" }, nodes);
}

/** A recorded prompt with the document's parts marked; each links to its place. */
function promptNodes(prompt) {
  const nodes = prompt.pieces.map((piece, at) => {
    if (typeof piece === "string") return textNodes(piece);
    const place = link(`text-${piece.source}-${piece.start}-${piece.end}`, placeText(piece));
    const text = textOf(piece.source, piece.start, piece.end, SHOWN_SPAN_CHARS);
    const note = prompt.ambiguous.includes(at) ? " (also elsewhere)" : "";
    return make(
      "mark",
      { class: "part-of-document" },
      make("span", { class: "where" }, place, note),
      text === null ? null : textNodes(`\n${text}`),
    );
  });
  if (prompt.left_out) {
    nodes.push(
      make(
        "p",
        { class: "muted" },
        `${plural(prompt.left_out, "character")} of the prompt were not recorded.`,
      ),
    );
  }
  return make("pre", { class: "prompt", dir: "auto", tabindex: "0" }, nodes);
}

/** The messages before each reply of the root, by the reply's number; null if they are unknown. */
let conversations;
derive(() => (conversations = readConversations()));

function readConversations() {
  const ends = [];
  run.messages.forEach((message, at) => {
    if (message.role === "assistant") ends.push(at);
  });
  // With an earlier question of a session, the replies of this run are the last ones.
  const turns = rootTurns.length;
  if (!turns) return [];
  const own = ends.length >= turns ? ends.slice(-turns) : [];
  return rootTurns.map((turn, at) => {
    const end = own[at];
    const fits = end !== undefined && sameStart(run.messages[end].content, turn.reply);
    return fits ? run.messages.slice(0, end) : null;
  });
}

function sameStart(one, other) {
  const size = Math.min(one.length, other.length, 60);
  return size === 0 || one.slice(0, size) === other.slice(0, size);
}

const ORIGINS = {
  cache: "the cache",
  journal: "the journal: replayed when the run was resumed",
};

const more = (summary, ...children) => make("details", {}, make("summary", {}, summary), children);

function turnPrompt(row) {
  const turn = row.item;
  if (turn.prompt) return promptNodes(turn.prompt);
  if (row.parent !== null) return childPrompt(row);
  const messages = conversations[row.siblings.indexOf(turn)];
  if (!messages || !messages.length)
    return make(
      "p",
      { class: "muted" },
      isRunning()
        ? "The messages are shown when the run has ended."
        : "The messages of this turn were not recorded, or were shortened later.",
    );
  const last = messages[messages.length - 1];
  const earlier = messages
    .slice(0, -1)
    .map((message) =>
      more(
        [`${message.role}, ${plural(message.content.length, "character")}`],
        pre(message.content),
      ),
    );
  return [
    pre(last.content),
    earlier.length ? more(`${plural(earlier.length, "earlier message")}`, earlier) : null,
  ];
}

/** The record has no messages of child runs, only what they consist of. */
function childPrompt(row) {
  const before = row.siblings[row.siblings.indexOf(row.item) - 1];
  if (!before)
    return [
      make("p", { class: "muted" }, "The question of the child run:"),
      promptNodes(rows[row.parent].item.prompt),
    ];
  const outputs = before.executions.map(
    (block) => block.output || block.error || "(nothing was printed)",
  );
  return [
    make("p", { class: "muted" }, "The output of the turn before:"),
    pre([...outputs, before.note].filter(Boolean).join("\n")),
  ];
}

function usageFacts(row) {
  const { usage, item } = row;
  const saved = item.saved;
  const wait = row.sent - row.from;
  const model = row.model || "unknown";
  return facts([
    ["model", foreign(row.isChild ? "a child run" : model)],
    ...(row.origin in ORIGINS ? [["answered by", ORIGINS[row.origin]]] : []),
    ["answered in", seconds(row.end - row.sent)],
    ["waited", seconds(wait)],
    ["began at", seconds(row.sent)],
    ["retries", count(row.retries || 0)],
    ...(row.isChild
      ? []
      : [
          ["input tokens", usage ? count(usage.input_tokens) : "unknown"],
          ["of them cached", usage ? count(usage.cached_tokens) : "unknown"],
          ["output tokens", usage ? count(usage.output_tokens) : "unknown"],
          ...(saved ? [["tokens saved", count(saved.input_tokens + saved.output_tokens)]] : []),
          ["end of the reply", foreign(item.finish_reason ?? "unknown")],
        ]),
  ]);
}

function turnDetail(row) {
  const turn = row.item;
  return [
    usageFacts(row),
    make("h3", {}, "What the model saw"),
    turnPrompt(row),
    make("h3", {}, "What it answered"),
    pre(turn.reply),
    turn.note ? [make("h3", {}, "Note that it got with the output"), pre(turn.note)] : null,
    make("h3", {}, "What its code did"),
    turn.executions.length
      ? childLinks(row)
      : make("p", { class: "muted" }, "No code was run in this turn."),
  ];
}

function blockDetail(row) {
  const block = row.item;
  return [
    facts([
      ["status", block.status],
      ["took", seconds(block.elapsed)],
      ["began at", seconds(block.start)],
      ["calls", count(block.subcalls.length + block.function_calls.length)],
      ...(block.unrecorded ? [["calls not recorded", count(block.unrecorded)]] : []),
      ...(block.dropped ? [["characters of output not kept", count(block.dropped)]] : []),
    ]),
    make("h3", {}, "Code"),
    code(block.code),
    make("h3", {}, "Output"),
    block.output ? pre(block.output) : make("p", { class: "muted" }, "Nothing was printed."),
    block.error ? [make("h3", {}, "Error"), pre(block.error, { class: "error" })] : null,
    block.store_events.length
      ? [make("h3", {}, "Writes to the store"), storeEvents(block.store_events)]
      : null,
    row.descendants ? [make("h3", {}, "Calls"), childLinks(row)] : null,
  ];
}

const storeEvents = (events) =>
  make(
    "ul",
    { class: "plain" },
    events
      .slice(0, SHOWN_CALLS)
      .map((event) =>
        make(
          "li",
          {},
          `${event.op} `,
          link(`object-${event.id}`, foreign(event.id)),
          " ",
          foreign(oneLine(String(event.description ?? ""), 120), "span", { class: "muted" }),
        ),
      ),
    events.length > SHOWN_CALLS
      ? make(
          "li",
          { class: "muted" },
          `and ${count(events.length - SHOWN_CALLS)} more, in the store below`,
        )
      : null,
  );

/** Links to the rows directly below this one, with prompt and reply. */
function childLinks(row) {
  const items = [];
  let left = 0;
  for (let at = row.index + 1; at <= row.index + row.descendants; at += rows[at].descendants + 1) {
    if (items.length === SHOWN_CALLS) left += 1;
    else items.push(childItem(rows[at]));
  }
  return make(
    "ul",
    { class: "plain" },
    items,
    left ? make("li", { class: "muted" }, `and ${count(left)} more, in the list of calls`) : null,
  );
}

function childItem(row) {
  const prompt =
    row.kind === "call"
      ? make(
          "div",
          { class: "muted" },
          "asked: ",
          foreign(oneLine(promptText(row.item.prompt), 160), "span"),
        )
      : null;
  const says = { call: "answered: ", turn: "replied: ", block: "", function: "" }[row.kind];
  return make(
    "li",
    {},
    link(row.name, textNodes(`${row.label} (${row.name})`)),
    row.error ? [" ", make("span", { class: "mark bad" }, "error")] : null,
    prompt,
    make("div", {}, says, foreign(oneLine(snippet(row), 160), "span")),
  );
}

function callDetail(row) {
  const call = row.item;
  return [
    usageFacts(row),
    facts([
      ["function", foreign(call.function)],
      ["depth", count(call.depth)],
      ["place in the run", foreign(call.path)],
    ]),
    make("h3", {}, row.isChild ? "Its question" : "What the model saw"),
    promptNodes(call.prompt),
    make("h3", {}, "What came back"),
    pre(replyText(call.reply), { class: row.error ? "error" : null }),
    call.citations.length
      ? [
          make("h3", {}, "Its evidence"),
          make(
            "ul",
            { class: "plain" },
            call.citations.map((each) =>
              make(
                "li",
                {},
                link(`text-${each.source}-${each.start}-${each.end}`, placeText(each)),
                " ",
                foreign(each.quote, "q"),
              ),
            ),
          ),
        ]
      : null,
    row.isChild ? [make("h3", {}, "Its turns"), childLinks(row)] : null,
  ];
}

const functionDetail = (row) => [
  facts([
    ["took", seconds(row.end - row.sent)],
    ["began at", seconds(row.sent)],
    ["place in the run", foreign(row.item.path)],
  ]),
  make("h3", {}, "Arguments"),
  pre(row.item.arguments),
  row.error ? [make("h3", {}, "Error"), pre(row.error, { class: "error" })] : null,
];

const DETAILS = {
  turn: turnDetail,
  block: blockDetail,
  call: callDetail,
  function: functionDetail,
};

const detailTitle = (row) => [
  ...textNodes(row.label),
  " ",
  make("span", { class: "muted" }, row.name),
];

function showDetail(row) {
  document.getElementById("detail-title").replaceChildren(...detailTitle(row));
  detail.body.replaceChildren(...detailNodes(row));
}

function detailNodes(row) {
  const trail = [];
  for (let at = row.parent; at !== null; at = rows[at].parent) trail.unshift(rows[at]);
  return [
    trail.length
      ? make(
          "p",
          { class: "trail" },
          trail.map((each) => [link(each.name, textNodes(each.label)), " › "]),
          textNodes(row.label),
        )
      : null,
    ...DETAILS[row.kind](row).flat(2),
  ].filter(Boolean);
}

const detail = { body: make("div", {}, make("p", { class: "muted" }, "Select a row.")) };

const detailSection = () => section("detail", "Details", detail.body);
