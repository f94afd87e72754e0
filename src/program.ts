// Verbs to roles, nothing else. Each role is loaded when it is asked for.

import { existsSync, writeSync } from "node:fs";
import { overview, roleHelp, unknownVerb } from "./cli/help.ts";
import { isOperatorVerb, runOperatorVerb, verbHelp } from "./cli/operator-verbs.ts";
import { judgeEnvironment } from "./runtime/exec-environment.ts";
import { PROXY_VERB, proxyArguments } from "./runtime/proxy-verb.ts";
import { EXIT_USAGE, runRole } from "./runtime/run-role.ts";
import { parseSettings, type Role } from "./runtime/settings.ts";
import { versionText } from "./runtime/version.ts";

const roles = {
  up: () => import("./up/main.ts"),
  ztunnel: () => import("./ztunnel/main.ts"),
  waypoint: () => import("./waypoint/main.ts"),
  ca: () => import("./ca/main.ts"),
  control: () => import("./up/control-plane.ts"),
  cni: () => import("./cni/main.ts"),
} as const;

async function main(given: readonly string[]): Promise<number> {
  const args = given[0] === PROXY_VERB ? proxyArguments(given.slice(1), process.env) : given;
  const [verb, ...rest] = args;
  if (verb === undefined) return print(overview(), EXIT_USAGE);
  if (verb === "help" || verb === "--help" || verb === "-h") return help(rest[0]);
  if (verb === "version" || verb === "--version") return print(versionText(), 0);
  if (isOperatorVerb(verb, rest[0])) return await runOperatorVerb(verb, rest, { environment: process.env, print: (text) => print(text, 0), complain });
  if (!isRole(verb)) return complain(unknownVerb(verb));
  if (rest.includes("--help") || rest.includes("-h")) return print(roleHelp(verb), 0);
  const parsed = parseSettings(verb, rest, process.env);
  if (!parsed.ok) return complain(parsed.error.map((line) => `weft ${verb}: ${line}\n`).join(""));
  return runRole(verb, parsed.value, async () => (await roles[verb]()).run);
}

function help(about: string | undefined): number {
  if (about === undefined) return print(overview(), 0);
  if (isOperatorVerb(about)) return print(verbHelp(about), 0);
  if (about === PROXY_VERB) return print(roleHelp("ztunnel"), 0);
  return isRole(about) ? print(roleHelp(about), 0) : complain(unknownVerb(about));
}

function isRole(verb: string): verb is Role {
  return Object.hasOwn(roles, verb);
}

function print(text: string, status: number): number {
  writeSync(1, text);
  return status;
}

function complain(text: string): number {
  writeSync(2, text);
  return EXIT_USAGE;
}

/** Before anything else: see exec-environment.ts. Verbs that only print need no second start. */
async function settleEnvironment(args: readonly string[]): Promise<number | null> {
  const compiled = import.meta.path.startsWith("/$bunfs/");
  const glibc = existsSync("/lib64/ld-linux-x86-64.so.2");
  const decision = judgeEnvironment(process.env, { arch: process.arch, platform: process.platform, glibc, compiled, computes: args[0] === "waypoint" });
  if (decision.kind === "refuse") return complain(`weft: ${decision.message}\n`);
  if (decision.kind === "execute" && (isRole(args[0] ?? "") || args[0] === PROXY_VERB) && !args.includes("--help") && !args.includes("-h")) {
    const { execute, ownArguments } = await import("./runtime/execute.ts");
    execute(process.execPath, ownArguments(), decision.environment);
  }
  return null;
}

/** @returns the process's exit status. */
export async function run(args: readonly string[]): Promise<number> {
  return (await settleEnvironment(args)) ?? (await main(args));
}
