// resolv.conf as a container runtime, or a pod, may leave it: nothing throws, what comes out is within the bounds and of one form, and
// reading it again from what was understood gives the same.

import { parseIp } from "../../src/core/ip.ts";
import type { Random } from "../../src/core/ports.ts";
import { parseResolvConf, RESOLV_CONF_BYTES_MAX, RESOLV_CONF_SEARCH_MAX, RESOLV_CONF_SERVERS_MAX } from "../../src/wire/dns/resolv-conf.ts";
import type { FuzzRun } from "./fuzz.ts";
import { iterate } from "./iterate.ts";

export const name = "resolv-conf";

export const run = (fuzzRun: FuzzRun) => iterate(fuzzRun, (random) => anythingIsRead(soup(random)));

const pieces = [
  "nameserver", "search", "domain", "options", " ", " ", "\t", "\n", "\n", "\r\n", "#", ";", "198.18.0.1", "2001:db8::53", "::ffff:198.18.0.1", "fe80::1%eth0", "010.0.0.1",
  "svc.cluster.local", "CLUSTER.local.", "a..b", "-x-", ".", "x".repeat(64), "é", "\0", "\u2028", "ndots:5",
] as const;

function soup(random: Random): string {
  const count = random.next() < 0.01 ? 5_000 : Math.floor(random.next() * 40);
  let text = "";
  for (let i = 0; i < count; i++) text += pieces[Math.floor(random.next() * pieces.length)]!;
  return text;
}

function anythingIsRead(text: string): void {
  const read = parseResolvConf(text);
  if (read.nameservers.length > RESOLV_CONF_SERVERS_MAX || read.search.length > RESOLV_CONF_SEARCH_MAX) throw new Error("beyond its bounds");
  if (new Set(read.nameservers).size !== read.nameservers.length || new Set(read.search).size !== read.search.length) throw new Error("something comes twice");
  if (read.nameservers.some((ip) => parseIp(ip) !== ip)) throw new Error(`a nameserver that is no address: ${read.nameservers.join()}`);
  if (read.search.some((domain) => domain !== domain.toLowerCase() || domain.endsWith(".") || domain === "" || domain.length > 253)) throw new Error(`a domain of another form: ${JSON.stringify(read.search)}`);
  const again = parseResolvConf([...read.nameservers.map((ip) => `nameserver ${ip}`), `search ${read.search.join(" ")}`].join("\n"));
  if (text.length <= RESOLV_CONF_BYTES_MAX && !Bun.deepEquals(again, read)) throw new Error(`${JSON.stringify(read)} is read again as ${JSON.stringify(again)}`);
}
