// The sealed box: namespaces of our own in which tests and the demo build their networks. Nothing inside can reach a real
// network, and nothing outside is changed: own network, mounts (an empty /run), processes, and for an ordinary user own ids.
// Needs only util-linux (`unshare`). Root is not needed.
//
// A program that builds networks:
//
//   const outside = await runSealed(import.meta.path, process.argv.slice(2));
//   if (outside !== null) process.exit(outside);        // we were the one outside; the sealed run has ended
//   ... from here on we are inside ...
//
// A test file (test/run.ts seals every one of them; a plain `bun test` outside skips, with the reason in the name):
//
//   describeUnless(unsealed)("capture", () => { ... });
//
// `requireBox()` throws unless we are inside: the network kit calls it before it makes anything.

import { closeSync, constants, existsSync, mkdirSync, openSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { must, NamespaceLinks } from "../../src/net/links.ts";
import { errnoName, mount } from "../../src/net/libc.ts";
import type { Link } from "../../src/wire/netlink/route.ts";
import type { SkipReason } from "./skip.ts";

/** Holds the network namespace that the sealed program was started from; test/runner/sealed.ts sets the same one. */
const OUTSIDE_VARIABLE = "WEFT_TEST_OUTSIDE_NETNS";

/** Set by the launcher: the user namespace that it runs in. The sealed program then finds the launcher's /proc on OUTSIDE_PROC_FD. */
const OUTSIDE_USER_VARIABLE = "WEFT_TEST_OUTSIDE_USERNS";
const OUTSIDE_PROC_FD = 3;

/** Whatever would end the launcher ends the sealed program first. */
const ENDING_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const;

const userNamespace = (): string => readlinkSync("/proc/self/ns/user");
const networkNamespace = (): string => readlinkSync("/proc/thread-self/ns/net");

/** Null inside the box; outside, why tests that build networks do not run. */
export const unsealed: SkipReason = trouble() === null ? null : "runs in the sealed box: npm test -- FILE";

/** Throws unless this process is inside a box with nothing but loopback. Call it before making any link or namespace. */
export function requireBox(): void {
  const why = trouble();
  if (why !== null) throw new Error(`refusing to build networks here: ${why}`);
}

/** Why this is not a box; null when it is one. Fails closed: a link we do not know is a real one. */
function trouble(): string | null {
  const outside = process.env[OUTSIDE_VARIABLE];
  if (outside === undefined || outside === networkNamespace()) return "not inside the sealed box (npm test, or runSealed)";
  const links = NamespaceLinks.open(null);
  if (!links.ok) return links.error.message;
  using open = links.value;
  const list = open.list();
  if (!list.ok) return list.error.message;
  const real = list.value.filter((link) => !isHarmless(link));
  return real.length === 0 ? null : `real interfaces can be seen: ${real.map((link) => link.name).join(", ")}`;
}

/** Loopback, and the fallback tunnels that some kernels put, down, into every new namespace. */
function isHarmless(link: Link): boolean {
  return link.name === "lo" || (!link.up && /^(tunl0|gre0|gretap0|erspan0|sit0|ip6tnl0|ip6gre0|ip_vti0|ip6_vti0)$/.test(link.name));
}

/** Ways to seal, best first: with processes of our own, then without where /proc may not be mounted again. */
function sealingArguments(): string[][] {
  const user = process.getuid?.() === 0 ? [] : ["--user", "--map-root-user"];
  const owned = ["--user", "--map-root-user"];
  const processes = ["--pid", "--fork", "--mount-proc", "--kill-child"];
  return [
    ["unshare", ...user, "--net", "--mount", ...processes, "--"],
    ["unshare", ...owned, "--net", "--mount", ...processes, "--"],
    ["unshare", ...user, "--net", "--mount", "--"],
    ["unshare", ...owned, "--net", "--mount", "--"],
  ];
}

/**
 * Runs this program again inside a box and returns its exit status, or null when we are inside already (then the box is made
 * ready: loopback up, an empty /run). What would end the launcher (Ctrl-C, SIGTERM, a closed terminal) reaches the sealed program
 * as SIGTERM, and the launcher waits for its end. The program has to handle SIGTERM: process 1 of a namespace gets no signal
 * that it has no handler for.
 */
export async function runSealed(script: string, args: readonly string[]): Promise<number | null> {
  const outside = process.env[OUTSIDE_VARIABLE];
  if (outside !== undefined && outside !== networkNamespace()) {
    enter();
    return null;
  }
  const seal = workingSeal();
  const outsideProc = openSync("/proc", constants.O_RDONLY | constants.O_DIRECTORY);
  const child = Bun.spawn([...seal, process.execPath, script, ...args], {
    stdio: ["inherit", "inherit", "inherit", outsideProc],
    env: { ...process.env, [OUTSIDE_VARIABLE]: networkNamespace(), [OUTSIDE_USER_VARIABLE]: userNamespace() },
    // Away from the terminal's process group: a closed terminal would end `unshare`, and with it everything inside before it has tidied up.
    detached: true,
  });
  closeSync(outsideProc);
  for (const signal of ENDING_SIGNALS) process.on(signal, () => endSealed(child.pid, seal.includes("--fork")));
  return await child.exited;
}

function workingSeal(): string[] {
  const refusals: string[] = [];
  for (const seal of sealingArguments()) {
    const probe = Bun.spawnSync([...seal, "true"], { stdio: ["ignore", "ignore", "pipe"] });
    if (probe.exitCode === 0) return seal;
    refusals.push(`${seal.join(" ")}: ${probe.stderr.toString().trim()}`);
  }
  throw new Error(
    `cannot make a sealed box:\n${refusals.join("\n")}\n` +
      "needed: unshare (util-linux) and either root or unprivileged user namespaces; " +
      "see sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns",
  );
}

/** SIGTERM for the sealed program: `unshare --fork` ignores it while it waits, so there it goes to its child. */
function endSealed(pid: number, forked: boolean): void {
  const list = `/proc/${pid}/task/${pid}/children`;
  const children = forked && existsSync(list) ? readFileSync(list, "utf8").split(" ").filter((text) => text !== "").map(Number) : [];
  for (const target of children.length > 0 ? children : [pid]) {
    try {
      process.kill(target, "SIGTERM");
    } catch {
      // It has ended meanwhile, which is what was wanted.
    }
  }
}

let entered = false;
let outsidePid = process.pid;

/** The command line that runs `argv` inside the box, for someone outside; only the one who made the box, or root, may. */
export function enteringArgv(argv: readonly string[]): string[] {
  const outside = process.env[OUTSIDE_USER_VARIABLE];
  const user = outside === undefined || outside !== userNamespace() ? ["-U", "--preserve-credentials"] : [];
  return ["nsenter", "-t", `${outsidePid}`, ...user, "-m", "-n", "-p", ...argv];
}

function enter(): void {
  if (entered) return;
  entered = true;
  if (process.env[OUTSIDE_USER_VARIABLE] !== undefined) {
    // Our number as the launcher sees it; inside it may be 1. Nothing else of the outer /proc is for the box.
    outsidePid = Number(readlinkSync(`/proc/self/fd/${OUTSIDE_PROC_FD}/self`));
    closeSync(OUTSIDE_PROC_FD);
  }
  using links = must(NamespaceLinks.open(null));
  must(links.loopbackUp());
  requireBox();
  emptyRun();
}

/** A private, empty /run: named namespaces live below /run/netns. */
function emptyRun(): void {
  if (readdirSync("/run").length === 0) return;
  const mounted = mount("tmpfs", "/run", "tmpfs", 0);
  if (mounted < 0) throw new Error(`cannot mount an empty /run in the box: ${errnoName(mounted)}`);
}

/** Where named namespaces live, made when missing. */
export function namespaceFolder(): string {
  requireBox();
  mkdirSync("/run/netns", { recursive: true });
  return "/run/netns";
}
