// `weft proxy ztunnel`: how the chart of Istio's ztunnel starts its image. The chart leaves to the program where its volumes are, and
// gives it a root that is read only: so here are other defaults than `weft ztunnel` has. Pure.

import { tmpdir } from "node:os";
import { join } from "node:path";
import { type SettingKey, SETTINGS } from "./settings-table.ts";

export const PROXY_VERB = "proxy";
/** What may follow the verb, and says nothing more. */
const KIND = "ztunnel";

/** The volumes `istiod-ca-cert`, `istio-token` and `tmp` of the chart. What is kept in the last is a pod's own and ends with it. */
const defaults = (): Partial<Readonly<Record<SettingKey, string>>> => ({
  xdsRoot: "/var/run/secrets/istio/root-cert.pem",
  caRoot: "/var/run/secrets/istio/root-cert.pem",
  authToken: "/var/run/secrets/tokens/istio-token",
  state: join(tmpdir(), "weft"),
});

/**
 * @param args what follows the verb.
 * @returns the command line of the role that is meant. Where neither a flag nor a variable says otherwise, it names the chart's volumes.
 */
export function proxyArguments(args: readonly string[], environment: Readonly<Record<string, string | undefined>>): string[] {
  const flags = args[0] === KIND ? args.slice(1) : args;
  const added = Object.entries(defaults()).flatMap(([key, value]) => {
    const { flag, variables } = SETTINGS[key as SettingKey];
    const isGiven = flags.some((each) => each === `--${flag}` || each.startsWith(`--${flag}=`)) || variables.some((name) => (environment[name] ?? "") !== "");
    return isGiven ? [] : [`--${flag}`, value];
  });
  return ["ztunnel", ...added, ...flags];
}
