// docs/parity.md, made of the corpus, the differences and what was recorded.

import type { Case } from "./description.ts";
import { DIFFERENCES } from "./differences.ts";
import type { Observation } from "./observation.ts";

const INTRODUCTION = `# Where a waypoint differs from Envoy

\`test/parity\` sends the same requests through a waypoint and through Envoy 1.40 with equivalent configuration, with the defaults that Istio
gives its waypoints, and compares status, headers and what the servers were sent. Where the two differ on purpose this page says why; it is
made of \`test/parity/differences.ts\`. Everything else is the same.

`;

export function differencesPage(corpus: readonly Case[], recorded: (key: string) => { readonly envoy: Observation; readonly waypoint?: Observation } | undefined): string {
  const exchanges = corpus.reduce((sum, one) => sum + one.exchanges.length, 0);
  const differing = DIFFERENCES.reduce((sum, one) => sum + one.exchanges.length, 0);
  const cell = (seen: Observation | undefined): string => (seen === undefined ? "?" : summary(seen));
  const sections = DIFFERENCES.map(({ title, reason, exchanges: keys }) => {
    const rows = keys.map((key) => `| ${escape(key)} | ${cell(recorded(key)?.envoy)} | ${cell(recorded(key)?.waypoint)} |`);
    return `## ${title}\n\n${reason}\n\n| case / request | Envoy | waypoint |\n|---|---|---|\n${rows.join("\n")}\n`;
  });
  return `${INTRODUCTION}${exchanges} exchanges, ${differing} of which differ.\n\n${sections.join("\n")}`;
}

function summary({ answers, arrivals }: Observation): string {
  const statuses = answers.map(({ status }) => (status === 0 ? "no answer" : String(status))).join(", ");
  const got = arrivals.map(({ server, method, target }) => `${server} got \`${escape(`${method} ${target}`)}\``);
  return [statuses, ...got].join("; ");
}

function escape(text: string): string {
  const printable = text.replace(/[^\x20-\x7e]/g, (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, "0")}`);
  return (printable.length > 60 ? `${printable.slice(0, 60)}…` : printable).replaceAll("|", "\\|");
}
