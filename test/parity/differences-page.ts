// docs/parity.md, made of the corpus, the differences and what was recorded.

import type { Case } from "./description.ts";
import { DIFFERENCES } from "./differences.ts";
import { ENDPOINT_DIFFERENCES } from "./endpoints/differences.ts";
import type { RecordedEndpoints } from "./endpoints/recorded.ts";
import type { Observation } from "./observation.ts";

const INTRODUCTION = `# Where a waypoint differs from Envoy

\`test/parity\` sends the same requests through a waypoint and through Envoy 1.40 with equivalent configuration, with the defaults that Istio
gives its waypoints, and compares status, headers and what the servers were sent. Where the two differ on purpose this page says why; it is
made of \`test/parity/differences.ts\` and \`test/parity/endpoints/differences.ts\`. Everything else is the same.

`;

export function differencesPage(corpus: readonly Case[], recorded: (key: string) => { readonly envoy: Observation; readonly waypoint?: Observation } | undefined, endpoints: RecordedEndpoints): string {
  const exchanges = corpus.reduce((sum, one) => sum + one.exchanges.length, 0);
  const differing = DIFFERENCES.reduce((sum, one) => sum + one.exchanges.length, 0);
  const cell = (seen: Observation | undefined): string => (seen === undefined ? "?" : summary(seen));
  const sections = DIFFERENCES.map(({ title, reason, exchanges: keys }) => {
    const rows = keys.map((key) => `| ${escape(key)} | ${cell(recorded(key)?.envoy)} | ${cell(recorded(key)?.waypoint)} |`);
    return `## ${title}\n\n${reason}\n\n| case / request | Envoy | waypoint |\n|---|---|---|\n${rows.join("\n")}\n`;
  });
  return `${INTRODUCTION}${exchanges} exchanges, ${differing} of which differ.\n\n${sections.join("\n")}\n${endpointsPart(endpoints)}`;
}

/** How either treats the endpoints of a service. */
function endpointsPart(recorded: RecordedEndpoints): string {
  const facts = Object.values(recorded).reduce((sum, { envoy }) => sum + Object.keys(envoy).length, 0);
  const differing = ENDPOINT_DIFFERENCES.reduce((sum, one) => sum + one.facts.length, 0);
  const sections = ENDPOINT_DIFFERENCES.map(({ title, reason, facts: keys }) => {
    const rows = keys.map((key) => {
      const [name = "", fact = ""] = key.split(" / ");
      return `| ${name} | ${fact} | ${String(recorded[name]?.envoy[fact] ?? "?")} | ${String(recorded[name]?.waypoint?.[fact] ?? "?")} |`;
    });
    return `### ${title}\n\n${reason}\n\n| scenario | what is found out | Envoy | waypoint |\n|---|---|---|---|\n${rows.join("\n")}\n`;
  });
  return `## Endpoints\n\nBalancing, consistent hashing, health checks and ejection: ${Object.keys(recorded).length} scenarios with servers that fail when they are told to, in which ${facts} facts are\nfound out, ${differing} of which differ. Shares that chance has a part in are compared by the bounds of their distribution, times by bounds too.\n\n${sections.join("\n")}`;
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
