// A port of the box's own loopback at the same port of a place's loopback, for programs in there that are told an address of the first:
// two processes of socat with a socket file between them, as file systems are what the two have in common.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Place } from "./network.ts";
import { needsProgram, type SkipReason } from "./skip.ts";

export const needsSocat: SkipReason = needsProgram("socat");

export async function bringPort(place: Place, port: number): Promise<AsyncDisposable> {
  const folder = mkdtempSync(join(tmpdir(), "weft-port-"));
  const between = join(folder, "socket");
  const ends = [
    Bun.spawn(["socat", `UNIX-LISTEN:${between},fork`, `TCP:127.0.0.1:${port}`], { stdio: ["ignore", "ignore", "ignore"] }),
    place.exec(["socat", `TCP-LISTEN:${port},bind=127.0.0.1,fork,reuseaddr`, `UNIX-CONNECT:${between}`], { stdout: "ignore", stderr: "ignore" }),
  ];
  await place.listening(port);
  return {
    async [Symbol.asyncDispose]() {
      for (const end of ends) end.kill("SIGKILL");
      await Promise.all(ends.map(({ exited }) => exited));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
