import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { appendFileSync, chmodSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isEmptyDelta } from "../resources/mesh-delta.ts";
import { describeDiagnostic, documents, entry, namespace, policy, testOptions } from "../resources/test-kit.ts";
import { ConfigDirectory } from "./config-directory.ts";
import type { ConfigState } from "./config-source.ts";

/** In force within a second is what is promised. */
const WITHIN_MS = 1000;

let root: string;
let watched: Watched[];

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "weft-config-"));
  watched = [];
  mkdirSync(config());
});
afterEach(async () => {
  for (const one of watched) await one.close();
  rmSync(root, { recursive: true, force: true });
});

const config = (name = ""): string => join(root, "config", name);
const state = (): string => join(root, "state");
const write = (name: string, text: string): void => writeFileSync(config(name), text);

/** A directory being watched, and the states it told. */
class Watched {
  directory!: ConfigDirectory;
  readonly told: ConfigState[] = [];
  #wake: (() => void)[] = [];

  static async open(options: { state?: boolean } = {}): Promise<Watched> {
    const one = new Watched();
    watched.push(one);
    one.directory = await ConfigDirectory.open({
      directory: config(), stateDirectory: options.state === true ? state() : null, translation: testOptions,
      onChange: (next) => {
        one.told.push(next);
        for (const wake of one.#wake.splice(0)) wake();
      },
    });
    return one;
  }

  get policies(): string[] {
    return [...this.directory.state.mesh.policies.values()].map((p) => `${p.name} ${p.action}`).sort();
  }
  get problems(): string[] {
    return this.directory.state.diagnostics.filter((d) => d.severity === "error").map(describeDiagnostic);
  }

  /** Resolves once the condition holds; fails when it does not within a second. */
  async until(condition: () => boolean): Promise<void> {
    const deadline = AbortSignal.timeout(WITHIN_MS);
    while (!condition()) {
      if (deadline.aborted) throw new Error(`not within ${WITHIN_MS} ms; policies ${this.policies.join()}; ${this.problems.join("; ")}`);
      await new Promise<void>((resolve) => {
        this.#wake.push(resolve);
        deadline.addEventListener("abort", () => resolve(), { once: true });
      });
    }
  }

  async close(): Promise<void> {
    await this.directory[Symbol.asyncDispose]();
  }
}

const DENY = policy("p", "{action: DENY, rules: [{}]}");
const ALLOW = policy("p", "{action: ALLOW, rules: [{}]}");

const WEB = documents(entry("web-1"), "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n");
const route = (port: number): string => `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: ${port}}]}]}
`;

describe("a watched directory", () => {
  beforeEach(() => {
    write("ns.yaml", namespace("shop"));
    write("p.yaml", DENY);
  });

  test("is read once on opening, as version 1 with everything in its delta", async () => {
    const { directory, told } = await Watched.open();
    expect(directory.state.version).toBe(1);
    expect(directory.state.delta.policies.map((p) => p.name)).toEqual(["p"]);
    expect(told).toEqual([]);
  });
  test("a change in place is in force within a second, as one version more", async () => {
    const one = await Watched.open();
    write("p.yaml", ALLOW);
    await one.until(() => one.policies.join() === "p allow");
    expect(one.told.at(-1)?.version).toBe(1 + one.told.length);
  });
  test("a rename over the file", async () => {
    const one = await Watched.open();
    write(".p.yaml.tmp", ALLOW);
    renameSync(config(".p.yaml.tmp"), config("p.yaml"));
    await one.until(() => one.policies.join() === "p allow");
    expect(one.told).toHaveLength(1);
  });
  test("a file that comes, and one that goes", async () => {
    const one = await Watched.open();
    write("q.yml", policy("q", "{}"));
    await one.until(() => one.policies.join() === "p deny,q allow");
    unlinkSync(config("p.yaml"));
    await one.until(() => one.policies.join() === "q allow");
    expect(one.told.at(-1)?.delta.removedPolicies).toEqual(["shop/p" as never]);
  });
  test("a route alone is news: its delta holds it and nothing else", async () => {
    write("web.yaml", WEB);
    write("route.yaml", route(80));
    const one = await Watched.open();
    expect(one.directory.state.l7Delta.routes.map(({ name }) => name)).toEqual(["r"]);
    write("route.yaml", route(81));
    await one.until(() => one.told.length === 1);
    const { delta, l7, l7Delta, statuses } = one.told[0]!;
    expect([isEmptyDelta(delta), l7Delta.routes.map(({ id }) => id), [...l7.routes.keys()]]).toEqual([true, ["HTTPRoute/shop/r"], ["HTTPRoute/shop/r"]]);
    expect(statuses[0]?.parents[0]?.conditions).toContainEqual(expect.objectContaining({ type: "ResolvedRefs", status: false, reason: "BackendNotFound" }));
    unlinkSync(config("route.yaml"));
    await one.until(() => one.told.length === 2);
    expect(one.told[1]?.l7Delta.removedRoutes).toEqual(["HTTPRoute/shop/r"]);
  });
  test("a restart with a route that is broken keeps its last good state", async () => {
    write("web.yaml", WEB);
    write("route.yaml", route(80));
    const first = await Watched.open({ state: true });
    await first.directory.stored();
    await first.close();
    write("route.yaml", route(80).replace("rules", "rulez"));
    const second = await Watched.open({ state: true });
    expect([...second.directory.state.l7.routes.keys()]).toEqual(["HTTPRoute/shop/r"]);
    expect(second.problems.join()).toContain("its last good version stays in force");
  });
  test("a ConfigMap's swap of ..data changes all its files at once", async () => {
    for (const version of ["1", "2"]) mkdirSync(config(`..v${version}`));
    for (const name of ["a", "b"]) {
      write(`..v1/${name}.yaml`, policy(name, "{action: ALLOW}"));
      write(`..v2/${name}.yaml`, policy(name, "{action: DENY}"));
      symlinkSync(`..data/${name}.yaml`, config(`${name}.yaml`));
    }
    symlinkSync("..v1", config("..data"));
    const one = await Watched.open();
    expect(one.policies).toEqual(["a allow", "b allow", "p deny"]);
    symlinkSync("..v2", config("..data_tmp"));
    renameSync(config("..data_tmp"), config("..data"));
    await one.until(() => one.policies.join() === "a deny,b deny,p deny");
    expect(one.told).toHaveLength(1);
    expect(one.problems).toEqual([]);
  });
  test("hidden files, editors' files and other names are not read; a directory is named", async () => {
    for (const name of [".p.yaml.swp", ".hidden.yaml", "p.yaml~", "#p.yaml#", "4913", "notes.txt", "p.yaml.bak"]) write(name, "{[");
    mkdirSync(config("sub"));
    const one = await Watched.open();
    expect(one.directory.state.diagnostics.map(describeDiagnostic)).toEqual(["sub:1:1 info not_supported : is a directory; only the files beside it are read"]);
  });
  test("a file written in pieces is one change, and its half never counts", async () => {
    write("long.yaml", documents(policy("a", "{}"), policy("b", "{}")));
    const one = await Watched.open();
    const text = documents(policy("a", "{action: DENY}"), policy("b", "{action: DENY}"));
    write("long.yaml", "");
    for (let at = 0; at < text.length; at += 20) appendFileSync(config("long.yaml"), text.slice(at, at + 20));
    await one.until(() => one.policies.join() === "a deny,b deny,p deny");
    expect(one.told).toHaveLength(1);
  });
  test("a broken file keeps what it had and says so; mended, it is in force", async () => {
    const one = await Watched.open();
    write("p.yaml", DENY.replace("DENY", "DNY"));
    await one.until(() => one.problems.length === 1);
    expect(one.policies).toEqual(["p deny"]);
    expect(one.told.at(-1)?.delta.policies).toEqual([]);
    write("p.yaml", ALLOW);
    await one.until(() => one.policies.join() === "p allow" && one.problems.length === 0);
  });
  test("files that are no text, no file or dangling are said so, and nothing waits for them", async () => {
    const one = await Watched.open();
    writeFileSync(config("latin.yaml"), Buffer.from([0x61, 0xff, 0x0a]));
    writeFileSync(config("big.yaml"), Buffer.alloc(4 * 1024 * 1024 + 1, 0x23));
    symlinkSync("nowhere", config("dangling.yaml"));
    symlinkSync("/dev/zero", config("device.yaml"));
    expect(Bun.spawnSync(["mkfifo", config("pipe.yaml")]).exitCode).toBe(0);
    await one.until(() => one.problems.length === 5);
    expect(one.problems.map((line) => line.split(";")[0])).toEqual([
      "big.yaml:1:1 error file_too_large : found 4194305 bytes, at most 4194304 are read", "dangling.yaml:1:1 error file_unreadable : cannot be read: ENOENT",
      "device.yaml:1:1 error file_unreadable : is not a regular file", "latin.yaml:1:1 error file_unreadable : is not UTF-8 text", "pipe.yaml:1:1 error file_unreadable : is not a regular file",
    ]);
    expect(one.policies).toEqual(["p deny"]);
  });
  test("a directory that goes keeps everything; one that comes in its place is read and watched", async () => {
    const one = await Watched.open();
    renameSync(config(), join(root, "old"));
    one.directory.reload();
    expect(one.problems[0]).toContain("cannot read the directory");
    expect(one.policies).toEqual(["p deny"]);
    mkdirSync(config());
    write("ns.yaml", namespace("shop"));
    write("p.yaml", ALLOW);
    one.directory.reload();
    expect(one.policies).toEqual(["p allow"]);
    expect(one.problems).toEqual([]);
    write("p.yaml", DENY);
    await one.until(() => one.policies.join() === "p deny");
  });
  test("what is behind a link elsewhere is noticed by looking again", async () => {
    writeFileSync(join(root, "elsewhere.yaml"), policy("q", "{}"));
    symlinkSync("../elsewhere.yaml", config("q.yaml"));
    const one = await Watched.open();
    writeFileSync(join(root, "elsewhere.yaml"), policy("q", "{action: DENY}"));
    one.directory.reload();
    expect(one.policies).toEqual(["p deny", "q deny"]);
  });
  test("once closed nothing more is told", async () => {
    const one = await Watched.open();
    await one.close();
    write("p.yaml", ALLOW);
    one.directory.reload();
    expect(one.policies).toEqual(["p deny"]);
  });
});

describe("the last good state on disk", () => {
  beforeEach(() => write("all.yaml", documents(namespace("shop"), entry("web-1"), DENY)));

  test("a restart with broken files keeps what was in force", async () => {
    const first = await Watched.open({ state: true });
    await first.directory.stored();
    await first.close();
    write("all.yaml", "{[");
    const second = await Watched.open({ state: true });
    expect(second.policies).toEqual(["p deny"]);
    expect([...second.directory.state.mesh.workloads.values()].map((w) => w.name)).toEqual(["web-1"]);
    expect(second.problems).not.toEqual([]);
  });
  test("and with the directory away", async () => {
    const first = await Watched.open({ state: true });
    await first.close();
    rmSync(config(), { recursive: true });
    const second = await Watched.open({ state: true });
    expect(second.policies).toEqual(["p deny"]);
    expect(second.problems[0]).toContain("cannot read the directory");
  });
  test("follows changes and deletions", async () => {
    const first = await Watched.open({ state: true });
    write("q.yaml", policy("q", "{}"));
    await first.until(() => first.policies.length === 2);
    write("q.yaml", policy("q", "{action: DENY}"));
    await first.until(() => first.policies.join() === "p deny,q deny");
    unlinkSync(config("all.yaml"));
    write("ns.yaml", namespace("shop"));
    await first.until(() => first.policies.join() === "q deny");
    await first.close();
    write("q.yaml", "{[");
    expect((await Watched.open({ state: true })).policies).toEqual(["q deny"]);
  });
  test("is the owner's alone", async () => {
    mkdirSync(join(state(), "last-good"), { recursive: true });
    chmodSync(join(state(), "last-good"), 0o755);
    const one = await Watched.open({ state: true });
    await one.directory.stored();
    const mode = (path: string): number => statSync(path).mode & 0o777;
    expect(mode(join(state(), "last-good"))).toBe(0o700);
    const files = readdirSync(join(state(), "last-good"));
    expect(files).toHaveLength(2);
    for (const file of files) expect(mode(join(state(), "last-good", file))).toBe(0o600);
  });
  test("a torn file of it is not used, and said so", async () => {
    const first = await Watched.open({ state: true });
    await first.close();
    for (const file of readdirSync(join(state(), "last-good"))) if (file.endsWith(".json")) writeFileSync(join(state(), "last-good", file), "{\"format\":1");
    write("all.yaml", "{[");
    const second = await Watched.open({ state: true });
    expect(second.policies).toEqual([]);
    expect(second.directory.state.diagnostics.map(describeDiagnostic).join()).toContain("is not a last good state and is not used");
  });
  test("one that was never complete says nothing of the past", async () => {
    mkdirSync(join(state(), "last-good"), { recursive: true });
    write("all.yaml", documents(namespace("shop"), DENY.replace("DENY", "DNY")));
    const one = await Watched.open({ state: true });
    expect(one.policies).toEqual(["p deny"]);
  });
  test("without a directory and without a last good state it does not open", async () => {
    rmSync(config(), { recursive: true });
    expect(Watched.open({ state: true })).rejects.toThrow("cannot read the configuration directory");
    watched = [];
  });
});
