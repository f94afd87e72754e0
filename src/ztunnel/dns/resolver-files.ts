// Which resolvers a workload uses: those of its own resolv.conf where it can be read, else the node's. Read again when asked
// after a while, as container runtimes and operators rewrite these files.

import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { type IpAddress, isLoopback } from "../../core/ip.ts";
import type { Clock } from "../../core/ports.ts";
import type { NetworkNamespace } from "../../mesh/local-workload.ts";
import { parseResolvConf, RESOLV_CONF_BYTES_MAX, type ResolvConf } from "../../wire/dns/resolv-conf.ts";
import type { ResolverConfig } from "./workload-dns.ts";

export const NODE_RESOLV_CONF = "/etc/resolv.conf";
/** The node's, best first; the second has what systemd-resolved asks behind the loopback address that it puts into the first. */
export const NODE_RESOLV_CONFS: readonly string[] = [NODE_RESOLV_CONF, "/run/systemd/resolve/resolv.conf"];
/** How long a change may go unseen. */
export const REREAD_MS = 5_000;
const UPSTREAM_PORT = 53;

export interface ResolverFilesOptions {
  /** Where the workload's own file may be, best first; see ownResolvConfPaths. */
  readonly own: readonly string[];
  readonly node?: readonly string[];
  readonly clock: Clock;
}

export class ResolverFiles {
  readonly #own: readonly string[];
  readonly #node: readonly string[];
  readonly #clock: Clock;
  #current: ResolverConfig = { upstreams: [], searchDomains: null };
  #readAgainMs = -Infinity;

  constructor({ own, node = NODE_RESOLV_CONFS, clock }: ResolverFilesOptions) {
    this.#own = own;
    this.#node = node;
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
    const own = firstRead(this.#own, () => true);
    const servers = own !== null && own.nameservers.length > 0 ? own.nameservers : this.#nodeServers();
    return { upstreams: servers.map((ip) => ({ ip, port: UPSTREAM_PORT })), searchDomains: own?.search ?? null };
  }

  /** The node's loopback is not the workload's: what listens there cannot be asked from the workload's namespace. */
  #nodeServers(): readonly IpAddress[] {
    const config = firstRead(this.#node, ({ nameservers }) => nameservers.some((ip) => !isLoopback(ip)));
    return config?.nameservers.filter((ip) => !isLoopback(ip)) ?? [];
  }
}

function firstRead(paths: readonly string[], accept: (config: ResolvConf) => boolean): ResolvConf | null {
  for (const path of paths) {
    const config = readResolvConf(path);
    if (config !== null && accept(config)) return config;
  }
  return null;
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
