// resolv.conf (resolv.conf(5)): nameservers and search domains. Written by the container runtime, or by the pod itself, so it is
// input like any other: bounded, and what is malformed is skipped.

import { type IpAddress, parseIp } from "../../core/ip.ts";
import { encodeName, lowerName } from "./name.ts";

export interface ResolvConf {
  readonly nameservers: readonly IpAddress[];
  /** In lower case, without trailing dots; the last `search` or `domain` line counts. */
  readonly search: readonly string[];
}

/** glibc reads three; more servers only make a failing look-up longer. */
export const RESOLV_CONF_SERVERS_MAX = 3;
/** Kubernetes allows 32 search domains. */
export const RESOLV_CONF_SEARCH_MAX = 32;
export const RESOLV_CONF_BYTES_MAX = 64 * 1024;

/** Never fails. Text beyond RESOLV_CONF_BYTES_MAX is not read. */
export function parseResolvConf(text: string): ResolvConf {
  const nameservers: IpAddress[] = [];
  let search: readonly string[] = [];
  for (const line of text.slice(0, RESOLV_CONF_BYTES_MAX).split("\n")) {
    const words = line.replace(/[#;][^]*$/, "").split(/[ \t\r]+/);
    const [keyword, ...values] = words;
    if (keyword === "nameserver") {
      const ip = parseIp(values[0] ?? "");
      if (ip !== null && nameservers.length < RESOLV_CONF_SERVERS_MAX && !nameservers.includes(ip)) nameservers.push(ip);
    } else if (keyword === "search") {
      search = domains(values);
    } else if (keyword === "domain") {
      search = domains(values.slice(0, 1));
    }
  }
  return { nameservers, search };
}

function domains(words: readonly string[]): string[] {
  const found: string[] = [];
  for (const word of words) {
    const domain = lowerName(word.endsWith(".") ? word.slice(0, -1) : word);
    if (domain !== "" && encodeName(domain) !== null && !found.includes(domain) && found.length < RESOLV_CONF_SEARCH_MAX) found.push(domain);
  }
  return found;
}
