// The question, the answer with its citations in place, and how the run ended.

const ENDS = {
  final: "The model gave its final answer.",
  max_iterations: "Stopped: the last turn was used.",
  budget_calls: "Stopped: the budget of calls was spent.",
  budget_tokens: "Stopped: the budget of tokens was spent.",
  budget_cost: "Stopped: the budget of dollars was spent.",
  budget_seconds: "Stopped: the time was over.",
  repeated_reply: "Stopped: the model repeated its reply.",
  model_error: "Failed: the model could not be called, or gave no usable reply.",
  sandbox_lost: "Failed: the sandbox was lost.",
  cancelled: "Cancelled before its end.",
  failed: "Failed with an exception.",
  running: "Still running: this is the record so far.",
  interrupted: "Its process ended before the run: it can be resumed.",
};

const LONG_QUESTION = 300; // characters of one that is set like other text

/** How many replies are from the journal of a resumed run, and from the cache. */
function unmadeCalls() {
  const replayed = replayedCalls();
  const made = run.total_calls - replayed;
  return [
    replayed && `${made > 0 ? plural(replayed, "call") : "all calls"} replayed from the journal`,
    run.spent.total.cached && `${plural(run.spent.total.cached, "reply")} from the cache`,
  ].filter(Boolean);
}

/** Whether language models were asked, as a sentence. */
const modelsSentence = () => [modelsUsed(), ...unmadeCalls()].join(", ");

function modelsUsed() {
  const names = new Set([run.models.root, ...Object.values(run.models.subs)].filter(Boolean));
  if (!names.size) return "Models unknown";
  if ([...names].every((name) => name === "offline")) {
    return "Offline: a stand-in that quotes sentences, no language model";
  }
  return names.has("offline") ? "Live and offline models" : "Live models";
}

const isComplete = () => run.stop_reason === "final";
const isRunning = () => run.stop_reason === "running";

/** The answer as a string; that of an incomplete run may be partial or missing. */
function answerText() {
  const answer = run.answer ?? run.partial;
  if (answer === null) return null;
  return typeof answer === "string" ? answer : JSON.stringify(answer, null, 2);
}

const citationLink = (number) =>
  make(
    "sup",
    {},
    make("a", { href: `#citation-${number}`, "aria-label": `Citation ${number}` }, `[${number}]`),
  );

/** The answer with links behind the words that each citation quotes, or at their own marks. */
function citedAnswer(text) {
  const places = [];
  const has = new Set();
  for (const found of text.matchAll(/\[(\d{1,4})\]/g)) {
    const number = Number(found[1]);
    if (number >= 1 && number <= run.citations.length) {
      places.push([found.index, found.index + found[0].length, number]);
      has.add(number);
    }
  }
  run.citations.forEach((citation, at) => {
    const quote = citation.quote.trim();
    const start = quote && !has.has(at + 1) ? text.indexOf(quote) : -1;
    if (start >= 0) places.push([start + quote.length, start + quote.length, at + 1]);
  });
  places.sort((a, b) => a[0] - b[0] || a[2] - b[2]);
  const nodes = [];
  let done = 0;
  for (const [start, end, number] of places) {
    if (start < done) continue;
    nodes.push(textNodes(text.slice(done, start)), citationLink(number));
    done = end;
  }
  nodes.push(textNodes(text.slice(done)));
  return nodes;
}

function citationItem(citation, at) {
  const source = sourceOf.get(citation.source);
  const place = `text-${citation.source}-${citation.start}-${citation.end}`;
  return make(
    "li",
    { id: `citation-${at + 1}`, tabindex: "-1" },
    foreign(citation.quote, "q"),
    make(
      "div",
      { class: "place" },
      link(
        place,
        foreign(citation.location || (source ? sourceLabel(source) : citation.source)),
        `, characters ${count(citation.start)} to ${count(citation.end)}`,
      ),
      citation.ambiguous ? " (these words occur more than once; this is the first place)" : null,
    ),
  );
}

/** When the run began; a file may have any number. */
function beginning() {
  const time = new Date(run.started === null ? NaN : run.started * 1000);
  return Number.isNaN(time.getTime())
    ? "at an unknown time"
    : `${time.toISOString().replace("T", " ").slice(0, 19)} UTC`;
}

function answerSection() {
  const answer = answerText();
  const began = beginning();
  return make(
    "section",
    { id: "answer", "aria-labelledby": "question" },
    make("p", { class: "over" }, "Question"),
    foreign(run.question || "(no question was recorded)", "h1", {
      id: "question",
      class: run.question.length > LONG_QUESTION ? "long-question" : null,
      tabindex: "-1",
    }),
    make(
      "p",
      { class: "status" },
      make(
        "span",
        { class: isRunning() ? "end" : isComplete() ? "end good" : "end bad" },
        run.stop_reason,
      ),
      ` ${ENDS[run.stop_reason] ?? ""}`,
    ),
    make(
      "p",
      { class: "muted" },
      `${modelsSentence()} · begun ${began} · run `,
      foreign(run.run_id),
    ),
    run.error ? foreign(cut(run.error, 4000), "p", { class: "error" }) : null,
    make("h2", {}, isComplete() ? "Answer" : "Best answer so far"),
    answer === null || answer === ""
      ? make("p", { class: "muted" }, `There is no answer${isRunning() ? " yet" : ""}.`)
      : make("div", { class: "answer", dir: "auto" }, citedAnswer(answer)),
    run.citations.length
      ? [
          make("h3", {}, plural(run.citations.length, "citation")),
          make("ol", { class: "citations" }, run.citations.map(citationItem)),
        ]
      : make("p", { class: "muted" }, "No citations."),
    run.dropped_citations
      ? make(
          "p",
          {},
          `${plural(run.dropped_citations, "citation")} of the model could not be verified.`,
        )
      : null,
  );
}
