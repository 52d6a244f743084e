// The record of the run as rows: turns, their blocks of code, and the calls of those.

const defaults = data("defaults");

/** A record with all its fields: those with their default are not in the data. */
const record = (kind, given) => given && { ...defaults[kind], ...given };
const list = (kind, given) => given.map((each) => record(kind, each));

const asTurn = (given) => {
  const turn = record("turn", given);
  return {
    ...turn,
    usage: record("usage", turn.usage),
    saved: record("usage", turn.saved),
    prompt: record("prompt", turn.prompt),
  };
};

const asCall = (given) => {
  const call = record("call", given);
  return {
    ...call,
    usage: record("usage", call.usage),
    saved: record("usage", call.saved),
    prompt: record("prompt", call.prompt),
    citations: list("citation", call.citations),
  };
};

/** What follows from the record: it is computed now, and again when a live page gets an update. */
const derivations = [];
function derive(compute) {
  derivations.push(compute);
  compute();
}

const isLive = data("live") !== null;
const given = { run: data("run"), reading: data("reading") }; // a live page updates it
let run, reading;
derive(() => {
  run = record("run", given.run);
  run.citations = list("citation", run.citations);
  run.sources = list("source", run.sources);
  run.models = record("models", run.models);
  reading = given.reading;
});

/** The message of a failed call, or null. */
const errorOf = (reply) =>
  reply && typeof reply === "object" && reply.error
    ? `${reply.error.type}: ${reply.error.message}`
    : null;

/** A reply of a call as a string. */
const replyText = (reply) => errorOf(reply) ?? String(reply);

/**
 * All rows in order; a row is followed by its descendants. `name` is the row's link, `from` to
 * `sent` it waited, `sent` to `end` it was answered or ran. `origin` says where a reply is from:
 * "model", "cache", or "journal" for a call that a resumed run did not make again.
 */
const rows = [];
const rowOf = new Map(); // by name
let numbers;

const originOf = (item, isInReplayed) =>
  item.saved ? "cache" : item.replayed || isInReplayed ? "journal" : "model";

function addRow(kind, parent, label, item, times, more) {
  const number = ++numbers[kind];
  const level = parent === null ? 1 : rows[parent].level + 1;
  const isInReplayed = parent !== null && rows[parent].isReplayedWhole;
  const isAnswered = kind === "turn" || kind === "call";
  const row = {
    kind,
    number,
    name: `${kind}-${number}`,
    parent,
    level,
    label,
    item,
    origin: isAnswered ? originOf(item, isInReplayed) : null,
    isReplayedWhole: isInReplayed || (kind === "call" && item.replayed), // with its calls
    ...times,
    ...more,
  };
  row.index = rows.push(row) - 1;
  rowOf.set(row.name, row);
  return row;
}

function addTurns(turns, parent) {
  turns = turns.map(asTurn);
  for (const turn of turns) {
    const row = addRow(
      "turn",
      parent,
      `Turn ${turn.iteration}`,
      turn,
      { from: turn.start - turn.wait, sent: turn.start, end: turn.call_end, last: turn.end },
      { model: turn.model, usage: turn.usage, retries: turn.retries, isModelCall: true },
    );
    row.siblings = turns;
    for (const block of turn.executions) addBlock(block, row.index);
    row.descendants = rows.length - 1 - row.index;
  }
}

function addBlock(given, parent) {
  const block = record("block", given);
  const end = block.start + block.elapsed;
  const row = addRow(
    "block",
    parent,
    `Block ${block.block}`,
    block,
    { from: block.start, sent: block.start, end, last: end },
    { error: ["ok", "running"].includes(block.status) ? null : block.error || block.status },
  );
  const made = [
    ...block.subcalls.map((call) => ["call", call]),
    ...block.function_calls.map((call) => ["function", call]),
  ];
  for (const [kind, call] of made) {
    if (kind === "call") addCall(call, row.index);
    else addFunction(call, row.index);
  }
  row.descendants = rows.length - 1 - row.index;
}

function addCall(given, parent) {
  const call = asCall(given);
  const isChild = call.turns.length > 0;
  const row = addRow(
    "call",
    parent,
    isChild ? `${call.function} → child run` : call.function,
    call,
    { from: call.start - call.wait, sent: call.start, end: call.end, last: call.end },
    {
      model: call.model,
      usage: call.usage,
      retries: call.retries,
      error: errorOf(call.reply),
      isModelCall: !isChild,
      isChild,
    },
  );
  addTurns(call.turns, row.index);
  row.descendants = rows.length - 1 - row.index;
}

function addFunction(given, parent) {
  const call = record("function", given);
  const times = { from: call.start, sent: call.start, end: call.end, last: call.end };
  addRow("function", parent, call.function, call, times, { error: call.error, descendants: 0 });
}

let rootTurns, modelCalls, endOfRun;
derive(() => {
  rows.length = 0;
  rowOf.clear();
  numbers = { turn: 0, block: 0, call: 0, function: 0 };
  addTurns(run.trajectory, null);
  rootTurns = rows.filter((row) => row.parent === null).map((row) => row.item);
  modelCalls = rows.filter((row) => row.isModelCall);
  endOfRun = rows.reduce((most, row) => Math.max(most, row.last), Math.max(run.elapsed, 0)) || 1;
});

/** How many model calls a resumed run did not make again. */
const replayedCalls = () => modelCalls.filter((row) => row.origin === "journal").length;

/** The largest number of model calls that were being answered at one time. */
function mostInFlight() {
  const changes = modelCalls.flatMap((row) => [
    [row.sent, 1],
    [row.end, -1],
  ]);
  changes.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  let open = 0;
  return changes.reduce((most, [, by]) => Math.max(most, (open += by)), 0);
}

/** The words by which a row is found, in lower case; made at the first search. */
function wordsOf(row) {
  if (row.words === undefined) {
    const item = row.item;
    const parts = {
      turn: () => [item.reply, item.note],
      block: () => [item.code, item.output, item.error ?? ""],
      call: () => [item.function, promptText(item.prompt), replyText(item.reply), item.path],
      function: () => [item.function, item.arguments, item.error ?? ""],
    }[row.kind]();
    row.words = [row.label, row.name, row.model ?? "", ...parts].join("\n").toLowerCase();
  }
  return row.words;
}

const placeText = (span) => `${span.source}, characters ${count(span.start)} to ${count(span.end)}`;

/** A recorded prompt with the names of its parts of the document instead of their text. */
const promptText = (prompt) =>
  prompt.pieces
    .map((piece) => (typeof piece === "string" ? piece : `[${placeText(piece)}]`))
    .join("");

const sourceOf = new Map(run.sources.map((source, number) => [source.name, { ...source, number }]));
const sourceLabel = (source) => source.file ?? source.id ?? source.name;
