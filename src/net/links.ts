// Network namespaces and what is in them: making and naming them, veth pairs, addresses, routes, kernel settings.
// By netlink alone, so that it works where no `ip` program is. Each call says in its fault which object the kernel refused.

import { type Cidr, type IpAddress, isIpv6, parseCidr } from "../core/ip.ts";
import { err, ok, type Result } from "../core/result.ts";
import {
  ARPHRD_LOOPBACK, type InterfaceAddress, type Link, MAIN_TABLE, type MarkRule, readAddress, readLink, readRoute, readRule, type Route, type VethEnd, writeDeleteLink, writeDeleteRoute,
  writeDeleteRule, writeGetAddresses, writeGetLinks, writeGetRoutes, writeGetRules, writeNewAddress, writeNewRoute, writeNewRule, writeNewVeth, writeReplaceRoute, writeSetLink,
} from "../wire/netlink/route.ts";
import {
  close, CLONE_NEWNET, EEXIST, ENOENT, ESRCH, MNT_DETACH, mount, MS_BIND, O_CLOEXEC, O_RDONLY, O_WRONLY, open, readFd, setns, umount, unshare, writeFd,
} from "./libc.ts";
import { inNamespace, openNamespace } from "./namespace.ts";
import { NETLINK_ROUTE, type NetlinkFault, type NetlinkRequest, NetlinkSocket } from "./netlink-socket.ts";

/** The links of one namespace, over one socket. Dispose it. */
export class NamespaceLinks implements Disposable {
  readonly #socket: NetlinkSocket;

  private constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  /** @param namespaceFd borrowed; null for the namespace this thread is in. */
  static open(namespaceFd: number | null): Result<NamespaceLinks, NetlinkFault> {
    const socket = NetlinkSocket.open(namespaceFd, NETLINK_ROUTE);
    return socket.ok ? ok(new NamespaceLinks(socket.value)) : socket;
  }

  list(): Result<Link[], NetlinkFault> {
    return this.#socket.dump({ object: "links", write: writeGetLinks }, readLink);
  }

  /** The link of that name; ENODEV when there is none. */
  find(name: string): Result<Link, NetlinkFault> {
    const links = this.list();
    if (!links.ok) return links;
    const link = links.value.find((candidate) => candidate.name === name);
    return link === undefined ? missing(`link ${name}`) : ok(link);
  }

  /** The loopback link, up or not. */
  loopback(): Result<Link, NetlinkFault> {
    const links = this.list();
    if (!links.ok) return links;
    const link = links.value.find((candidate) => candidate.hardwareType === ARPHRD_LOOPBACK);
    return link === undefined ? missing("loopback link") : ok(link);
  }

  loopbackUp(): Result<void, NetlinkFault> {
    const loopback = this.loopback();
    return loopback.ok ? this.setUp(loopback.value) : loopback;
  }

  /** A pair of virtual cables' ends; either end may be put into another namespace. */
  addVeth(pair: { readonly near: VethEnd; readonly far: VethEnd; readonly mtu: number | null }): Result<void, NetlinkFault> {
    return this.#socket.request({ object: `veth pair ${pair.near.name} and ${pair.far.name}`, write: (writer, stamp) => writeNewVeth(writer, stamp, pair) });
  }

  setUp(link: Link, mtu?: number): Result<void, NetlinkFault> {
    const change = mtu === undefined ? { index: link.index, up: true } : { index: link.index, up: true, mtu };
    return this.#socket.request({ object: `link ${link.name} up`, write: (writer, stamp) => writeSetLink(writer, stamp, change) });
  }

  delete(link: Link): Result<void, NetlinkFault> {
    return this.#socket.request({ object: `link ${link.name}`, write: (writer, stamp) => writeDeleteLink(writer, stamp, link.index) });
  }

  addresses(): Result<InterfaceAddress[], NetlinkFault> {
    return this.#socket.dump({ object: "addresses", write: writeGetAddresses }, readAddress);
  }

  addAddress(link: Link, ip: IpAddress, prefixLength: number): Result<void, NetlinkFault> {
    const address = { linkIndex: link.index, ip, prefixLength };
    return this.#socket.request({ object: `address ${ip}/${prefixLength} on ${link.name}`, write: (writer, stamp) => writeNewAddress(writer, stamp, address) });
  }

  routes(family: 4 | 6): Result<Route[], NetlinkFault> {
    return this.#socket.dump({ object: `IPv${family} routes`, write: (writer, stamp) => writeGetRoutes(writer, stamp, family) }, readRoute);
  }

  /** A unicast route in the main table. `to` is a CIDR, or `default` (then `via` says which family). */
  addRoute(to: string, by: { readonly link: Link; readonly via?: IpAddress }): Result<void, NetlinkFault> {
    const cidr = to === "default" ? null : parseCidr(to);
    if (cidr === null && (to !== "default" || by.via === undefined)) throw new Error(`not a route: ${to}; it is a CIDR, or default with a gateway`);
    const family = cidr?.family ?? (isIpv6(by.via!) ? 6 : 4);
    return this.addRawRoute({ family, to: cidr, via: by.via ?? null, linkIndex: by.link.index, table: MAIN_TABLE, type: "unicast" });
  }

  addRawRoute(route: Route): Result<void, NetlinkFault> {
    return this.#socket.request({ object: describeRoute(route), write: (writer, stamp) => writeNewRoute(writer, stamp, route) });
  }

  /** Adds the route unless it is there; another route to the same destination in the same table gives way. */
  ensureRoute(route: Route): Result<void, NetlinkFault> {
    return this.#socket.request({ object: describeRoute(route), write: (writer, stamp) => writeReplaceRoute(writer, stamp, route) });
  }

  /** Absent already is well. */
  deleteRoute(route: Route): Result<void, NetlinkFault> {
    return this.#absentIsWell({ object: describeRoute(route), write: (writer, stamp) => writeDeleteRoute(writer, stamp, route) });
  }

  rules(family: 4 | 6): Result<MarkRule[], NetlinkFault> {
    return this.#socket.dump({ object: `IPv${family} routing rules`, write: (writer, stamp) => writeGetRules(writer, stamp, family) }, readRule);
  }

  /** There already is well. */
  ensureRule(rule: MarkRule): Result<void, NetlinkFault> {
    const added = this.#socket.request({ object: describeRule(rule), write: (writer, stamp) => writeNewRule(writer, stamp, rule) });
    return !added.ok && added.error.errno === EEXIST ? ok(undefined) : added;
  }

  /** Absent already is well. */
  deleteRule(rule: MarkRule): Result<void, NetlinkFault> {
    return this.#absentIsWell({ object: describeRule(rule), write: (writer, stamp) => writeDeleteRule(writer, stamp, rule) });
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  #absentIsWell(request: NetlinkRequest): Result<void, NetlinkFault> {
    const deleted = this.#socket.request(request);
    return !deleted.ok && (deleted.error.errno === ENOENT || deleted.error.errno === ESRCH) ? ok(undefined) : deleted;
  }
}

function missing(object: string): { ok: false; error: NetlinkFault } {
  return err({ code: "netlink_refused", message: `no ${object} in this namespace`, blame: "operator", dies: "nothing", retry: { kind: "never" }, errno: 19 });
}

function describeRoute(route: Route): string {
  return `${route.type} route to ${route.to === null ? "everything" : describeCidr(route.to)} in table ${route.table} (IPv${route.family})`;
}

function describeCidr(cidr: Cidr): string {
  return cidr.family === 4 ? `${cidr.bytes.join(".")}/${cidr.prefixLength}` : `an IPv6 /${cidr.prefixLength}`;
}

function describeRule(rule: MarkRule): string {
  return `routing rule ${rule.priority}: mark 0x${rule.mark.toString(16)}/0x${rule.mask.toString(16)} to table ${rule.table} (IPv${rule.family})`;
}

/**
 * Makes a network namespace that lives as long as its name: a bind mount on `path`, where `ip netns` and `nsenter --net=` find it.
 * @param path an existing empty file.
 * @returns a descriptor of the namespace, the caller's to close; or -errno.
 */
export function createNamespace(path: string): number {
  const back = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (back < 0) return back;
  const left = unshare(CLONE_NEWNET);
  const mounted = left < 0 ? left : mount("/proc/thread-self/ns/net", path, "none", MS_BIND);
  if (left >= 0 && setns(back, CLONE_NEWNET) < 0) process.abort();
  close(back);
  return mounted < 0 ? mounted : openNamespace(path);
}

/** Takes the name off a namespace; it ends when its last process, socket and descriptor do. Returns 0 or -errno. */
export function releaseNamespace(path: string): number {
  return umount(path, MNT_DETACH);
}

/** Reads a file below /proc/sys/net as the namespace sees it; null when it is absent. */
export function readSysctl(namespaceFd: number, name: string): string | null {
  const path = sysctlPath(name);
  const into = new Uint8Array(256);
  const length = inNamespace(namespaceFd, () => {
    const fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fd;
    const count = readFd(fd, into);
    close(fd);
    return count;
  });
  return length < 0 ? null : new TextDecoder().decode(into.subarray(0, length)).trim();
}

/** @param name such as `net.ipv4.ip_forward`. Returns 0 or -errno. */
export function writeSysctl(namespaceFd: number, name: string, value: string): number {
  const path = sysctlPath(name);
  const bytes = new TextEncoder().encode(value);
  return inNamespace(namespaceFd, () => {
    const fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return fd;
    const written = writeFd(fd, bytes);
    close(fd);
    return written < 0 ? written : 0;
  });
}

function sysctlPath(name: string): string {
  if (!/^net(\.[A-Za-z0-9_-]+)+$/.test(name)) throw new Error(`not a network setting: ${name}`);
  return `/proc/sys/${name.replaceAll(".", "/")}`;
}

/** The value of a result that a set-up cannot go on without. */
export function must<T>(result: Result<T, NetlinkFault>): T {
  if (!result.ok) throw new Error(result.error.message, { cause: result.error });
  return result.value;
}

