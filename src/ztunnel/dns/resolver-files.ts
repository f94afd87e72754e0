// Which resolvers a workload uses: those of its own resolv.conf where it can be read, else the node's. Read again when asked
// after a while, as container runtimes and operators rewrite these files.

import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import type { Clock } from "../../core/ports.ts";
import type { NetworkNamespace } from "../../mesh/local-workload.ts";
import { parseResolvConf, RESOLV_CONF_BYTES_MAX, type ResolvConf } from "../../wire/dns/resolv-conf.ts";
import type { ResolverConfig } from "./workload-dns.ts";

export const NODE_RESOLV_CONF = "/etc/resolv.conf";
/** How long a change may go unseen. */
export const REREAD_MS = 5_000;
const UPSTREAM_PORT = 53;

export class ResolverFiles {
  readonly #paths: readonly string[];
  readonly #nodePath: string;
  readonly #clock: Clock;
  #current: ResolverConfig = { upstreams: [], searchDomains: null };
  #readAgainMs = -Infinity;

  /** @param paths where the workload's own file may be, best first; see ownResolvConfPaths. */
  constructor({ paths, nodePath = NODE_RESOLV_CONF, clock }: { paths: readonly string[]; nodePath?: string; clock: Clock }) {
    this.#paths = paths;
    this.#nodePath = nodePath;
    this.#clock = clock;
  }

  current(): ResolverConfig {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs >= this.#readAgainMs) {
      this.#readAgainMs = nowMs + REREAD_MS;
      this.#current = this.#read();
    }
    return this.#current;
  }

  #read(): ResolverConfig {
    const own = this.#paths.map(readResolvConf).find((config) => config !== null) ?? null;
    // A file without a nameserver means the local one (resolv.conf(5)), which is not reachable from here: the node's then.
    const servers = own !== null && own.nameservers.length > 0 ? own.nameservers : (readResolvConf(this.#nodePath)?.nameservers ?? []);
    return { upstreams: servers.map((ip) => ({ ip, port: UPSTREAM_PORT })), searchDomains: own?.search ?? null };
  }
}

/**
 * Where the resolv.conf of a namespace's processes is: of a named namespace below /etc/netns (ip-netns(8)), of a process's
 * namespace in its own root, of the host's namespace the node's.
 */
export function ownResolvConfPaths(namespace: NetworkNamespace): string[] {
  if (namespace.kind === "host") return [NODE_RESOLV_CONF];
  const named = /^(?:\/var)?\/run\/netns\/([^/]+)$/.exec(namespace.path);
  if (named !== null && named[1] !== "." && named[1] !== "..") return [`/etc/netns/${named[1]}/resolv.conf`];
  const process = /^\/proc\/([0-9]+)\/ns\/net$/.exec(namespace.path);
  return process === null ? [] : [`/proc/${process[1]}/root/etc/resolv.conf`];
}

/**
 * Null when the file is not there or cannot be read. The workload may have made it: it is opened without waiting (a FIFO would
 * block us), must be a regular file, and is read to a bound.
 */
export function readResolvConf(path: string): ResolvConf | null {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch {
    return null; // absent or forbidden: the next place counts
  }
  try {
    if (!fstatSync(fd).isFile()) return null;
    const bytes = new Uint8Array(RESOLV_CONF_BYTES_MAX);
    const length = readSync(fd, bytes, 0, bytes.length, 0);
    return parseResolvConf(new TextDecoder("latin1").decode(bytes.subarray(0, length)));
  } catch {
    return null; // an IO error: as if it were not there
  } finally {
    closeSync(fd);
  }
}
