// What the run took: time, calls, tokens, cost and budget.

/** A count of tokens; providers did not report those of `missing` calls. */
function tokenText(tokens, missing, calls) {
  if (!missing) return count(tokens);
  return missing >= calls ? "unknown" : `${count(tokens)} + unknown`;
}

function spentRow(name, spent) {
  const { calls, usage, uncounted, cost, cached = 0 } = spent;
  return [
    name,
    calls,
    cached,
    tokenText(usage.input_tokens, uncounted, calls),
    tokenText(usage.cached_tokens, uncounted, calls),
    tokenText(usage.output_tokens, uncounted, calls),
    tokenText(usage.reasoning_tokens, uncounted, calls),
    dollars(cost),
  ];
}

const SPENT_HEADS = [
  "",
  "calls",
  "from the cache",
  "input tokens",
  "of them cached",
  "output tokens",
  "of them reasoning",
  "cost",
];

/** The share of each limit that was used. */
function budgetRows() {
  const budget = run.options.budget ?? {};
  const total = run.spent.total;
  const tokens = total.usage.input_tokens + total.usage.output_tokens;
  const used = [
    ["calls", budget.max_calls, run.total_calls, count, false],
    ["tokens", budget.max_tokens, tokens, count, total.uncounted > 0],
    ["cost", budget.max_cost, total.cost, dollars, total.cost === null],
    ["time", budget.max_seconds, run.elapsed, seconds, false],
    ["turns", run.options.max_iterations, run.iterations, count, false],
  ];
  return used
    .filter(([, most]) => typeof most === "number")
    .map(([name, most, value, show, isUnknown]) => [
      name,
      isUnknown ? "unknown" : show(value),
      show(most),
      isUnknown ? "unknown" : percent(value, most),
    ]);
}

function totalsSection() {
  const total = run.spent.total;
  const answering = modelCalls.reduce((sum, row) => sum + Math.max(0, row.end - row.sent), 0);
  const waiting = modelCalls.reduce((sum, row) => sum + Math.max(0, row.sent - row.from), 0);
  const unrecorded = rows.reduce(
    (sum, row) => sum + (row.kind === "block" ? row.item.unrecorded : 0),
    0,
  );
  const replayed = replayedCalls();
  const isKnown = modelCalls.length > 0;
  const tokens = total.usage.input_tokens + total.usage.output_tokens;
  const budget = budgetRows();
  const depths = Object.entries(run.spent.by_depth).sort((a, b) => Number(a[0]) - Number(b[0]));
  return section(
    "totals",
    "Totals",
    facts([
      ["wall time", seconds(run.elapsed)],
      ["summed call time", isKnown ? seconds(answering) : "unknown"],
      ["waited for slots", isKnown ? seconds(waiting) : "unknown"],
      ["most calls in flight", isKnown ? count(mostInFlight()) : "unknown"],
      ["model calls", count(run.total_calls)],
      ...(replayed ? [["replayed calls", count(replayed)]] : []),
      ...(total.cached ? [["cached replies", count(total.cached)]] : []),
      ["turns", count(run.iterations)],
      ["tokens", tokenText(tokens, total.uncounted, total.calls)],
      ["cost", dollars(total.cost)],
      ...(unrecorded ? [["calls not recorded", count(unrecorded)]] : []),
    ]),
    make(
      "details",
      {},
      make("summary", {}, "By model, by depth, and the budget"),
      table(
        "Use by model",
        SPENT_HEADS,
        Object.entries(run.spent.by_model).map(([name, spent]) => spentRow(foreign(name), spent)),
      ),
      table(
        "Use by depth (0 is the root)",
        SPENT_HEADS,
        depths.map(([depth, spent]) => spentRow(`depth ${depth}`, spent)),
      ),
      budget.length ? table("Limits", ["", "used", "limit", "share"], budget) : null,
      table("Setup", ["", "value"], setupRows()),
    ),
  );
}

function setupRows() {
  const layers = Object.entries(run.layers).map(([name, state]) => `${name}: ${state}`);
  const documents = run.sources.reduce((sum, source) => sum + source.length, 0);
  return [
    ["root model", foreign(run.models.root || "unknown")],
    [
      "models of the code",
      foreign(
        Object.entries(run.models.subs)
          .map(([name, model]) => `${name} = ${model}`)
          .join(", ") || "unknown",
      ),
    ],
    ["document", `${plural(run.sources.length, "source")}, ${count(documents)} characters`],
    ["sandbox", foreign([run.options.sandbox, ...layers].filter(Boolean).join("; ") || "unknown")],
    ["library", foreign(run.version || "unknown")],
  ];
}
