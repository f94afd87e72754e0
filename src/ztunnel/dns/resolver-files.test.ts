import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseIp } from "../../core/ip.ts";
import { readResolvConf, REREAD_MS, ResolverFiles, ownResolvConfPaths } from "./resolver-files.ts";

const at = (text: string) => ({ ip: parseIp(text)!, port: 53 });

describe("resolvers of a workload", () => {
  let folder: string;
  const file = (name: string, text: string): string => {
    const path = join(folder, name);
    writeFileSync(path, text);
    return path;
  };
  beforeAll(() => void (folder = mkdtempSync(join(tmpdir(), "weft-resolv-"))));
  afterAll(() => rmSync(folder, { recursive: true }));

  let nowMs = 0;
  const files = (own: string[], node: string[]): ResolverFiles =>
    new ResolverFiles({ own, node, clock: { monotonicMs: () => nowMs, wallMs: () => 0 } });

  test("its own file, with its search path", () => {
    const own = file("own", "nameserver 198.18.0.1\nsearch a.test b.test\n");
    const node = file("node", "nameserver 198.18.0.9\nsearch node.test\n");
    expect(files([join(folder, "absent"), own], [node]).current()).toEqual({ upstreams: [at("198.18.0.1")], searchDomains: ["a.test", "b.test"] });
  });

  test("the node's where there is none, but not the node's search path", () => {
    const node = file("node", "nameserver 198.18.0.9\nsearch node.test\n");
    expect(files([join(folder, "absent")], [node]).current()).toEqual({ upstreams: [at("198.18.0.9")], searchDomains: null });
  });

  test("the node's loopback is not the workload's: what the local resolver asks is asked instead", () => {
    const stub = file("stub", "nameserver 127.0.0.53\n");
    const real = file("real", "nameserver 198.18.0.9\nnameserver ::1\n");
    expect(files([], [stub, real]).current().upstreams).toEqual([at("198.18.0.9")]);
    expect(files([], [stub]).current().upstreams).toEqual([]);
    expect(files([stub], [real]).current().upstreams).toEqual([at("127.0.0.53")]);
  });

  test("a change is seen, after a while", () => {
    const own = file("changing", "nameserver 198.18.0.1\n");
    const reader = files([own], []);
    expect(reader.current().upstreams).toEqual([at("198.18.0.1")]);
    writeFileSync(own, "nameserver 198.18.0.2\n");
    nowMs += REREAD_MS - 1;
    expect(reader.current().upstreams).toEqual([at("198.18.0.1")]);
    nowMs += 1;
    expect(reader.current().upstreams).toEqual([at("198.18.0.2")]);
  });

  test("a FIFO, a folder, a dangling link or a giant neither blocks nor fails", () => {
    const fifo = join(folder, "fifo");
    expect(Bun.spawnSync(["mkfifo", fifo]).exitCode).toBe(0);
    expect(readResolvConf(fifo)).toBeNull();
    mkdirSync(join(folder, "dir"));
    expect(readResolvConf(join(folder, "dir"))).toBeNull();
    symlinkSync("/nowhere", join(folder, "link"));
    expect(readResolvConf(join(folder, "link"))).toBeNull();
    expect(readResolvConf("/dev/zero")).toBeNull();
    expect(readResolvConf(file("giant", `nameserver 198.18.0.1\n${"#".repeat(10_000_000)}\nnameserver 198.18.0.2\n`))?.nameservers).toEqual([parseIp("198.18.0.1")!]);
  });

  test("where the file of a namespace is", () => {
    expect(ownResolvConfPaths({ kind: "host" })).toEqual(["/etc/resolv.conf"]);
    expect(ownResolvConfPaths({ kind: "path", path: "/run/netns/web" })).toEqual(["/etc/netns/web/resolv.conf"]);
    expect(ownResolvConfPaths({ kind: "path", path: "/var/run/netns/web" })).toEqual(["/etc/netns/web/resolv.conf"]);
    expect(ownResolvConfPaths({ kind: "path", path: "/proc/123/ns/net" })).toEqual(["/proc/123/root/etc/resolv.conf"]);
    for (const path of ["/run/netns/..", "/run/netns/a/b", "/proc/self/ns/net", "/tmp/ns"]) expect(ownResolvConfPaths({ kind: "path", path })).toEqual([]);
  });
});
