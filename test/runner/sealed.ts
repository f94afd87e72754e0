// Runs this program again inside namespaces of its own, so that no test can reach a real network or change the machine:
// a user namespace (no root needed), a network namespace with nothing but loopback, and private mounts with an empty /run.

import { readlinkSync } from "node:fs";

/** Holds the network namespace the sealed program was started from: being elsewhere now is the proof of the seal. */
const OUTSIDE_VARIABLE = "WEFT_TEST_OUTSIDE_NETNS";

const networkNamespace = (): string => readlinkSync("/proc/self/ns/net");

export function isSealed(): boolean {
  const outside = process.env[OUTSIDE_VARIABLE];
  return outside !== undefined && outside !== networkNamespace();
}

/** Prepares the new namespaces, then becomes the command given as arguments. */
const ENTER = 'mount -t tmpfs tmpfs /run && ip link set lo up && exec "$@"';

/** The command line that runs `argv` in a box of its own. Inside a box it needs no user namespace: we are root there. */
export function sealedArgv(argv: readonly string[]): string[] {
  const user = isSealed() ? [] : ["--user", "--map-root-user"];
  return ["unshare", ...user, "--net", "--mount", "--", "sh", "-euc", ENTER, "sealed", ...argv];
}

/**
 * Replaces this run by a sealed one and returns its exit code; null when we are inside already.
 * SIGINT and SIGTERM go on to the sealed run, which ends its children.
 */
export async function resealed(script: string, args: readonly string[]): Promise<number | null> {
  if (isSealed()) return null;
  refuseWhereSealIsImpossible();
  const child = Bun.spawn(sealedArgv([process.execPath, script, ...args]), {
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, [OUTSIDE_VARIABLE]: networkNamespace() },
  });
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
  return await child.exited;
}

function refuseWhereSealIsImpossible(): void {
  const probe = Bun.spawnSync(sealedArgv(["true"]), { stdio: ["ignore", "ignore", "pipe"] });
  if (probe.exitCode === 0) return;
  const said = probe.stderr.toString().trim();
  throw new Error(
    `cannot make namespaces for the tests: ${said}\n` +
      "needed: unshare (util-linux), ip (iproute2), and unprivileged user namespaces; " +
      "see sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns",
  );
}
