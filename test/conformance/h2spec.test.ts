// Every case of h2spec (RFC 9113's and RFC 7541's requirements, asked by a client we did not write) against the engine as a server.
//
// The program: $H2SPEC_BIN, or `h2spec` on the PATH or in Go's bin folder. `go build ./cmd/h2spec` in a clone of
// github.com/summerwind/h2spec makes it.

import { expect } from "bun:test";
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { DEFAULT_SETTINGS, FRAME_BYTES_MIN, type LocalSettings } from "../../src/wire/http2/limits.ts";
import { testUnless } from "../kit/skip.ts";
import { echoHandler } from "./echo-responder.ts";
import { listenHttp2 } from "./http2-socket.ts";

const CASES_TIMEOUT_MS = 120_000;
/** What the program prints last: `147 tests, 147 passed, 0 skipped, 0 failed`. */
const VERDICT = /(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed/;
const CASES_MIN = 140;

function findH2spec(): string | null {
  const named = process.env["H2SPEC_BIN"];
  if (named !== undefined && existsSync(named)) return named;
  const onPath = Bun.which("h2spec");
  if (onPath !== null) return onPath;
  const inGo = join(process.env["GOPATH"] ?? join(homedir(), "go"), "bin", "h2spec");
  return existsSync(inGo) ? inGo : null;
}

const program = findH2spec();
const missing = program === null ? "needs h2spec" : null;

async function runH2spec(settings: LocalSettings, arguments_: readonly string[]): Promise<{ output: string; total: number; failed: number; skipped: number }> {
  const server = listenHttp2({ settings }, echoHandler);
  try {
    const child = Bun.spawn([program!, "-h", "127.0.0.1", "-p", String(server.port), "--strict", "--timeout", "2", ...arguments_], { stdout: "pipe", stderr: "pipe" });
    const [output] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
    const verdict = VERDICT.exec(output);
    if (verdict === null) throw new Error(`h2spec gave no verdict:\n${output}`);
    const failures = output.slice(output.indexOf("Failures:"));
    return { output: failures, total: Number(verdict[1]), failed: Number(verdict[4]), skipped: Number(verdict[3]) };
  } finally {
    server.stop();
  }
}

// h2spec takes the maximum frame size to be the RFC's initial 16 KiB in case http2/4.2/3 ("a HEADERS frame that exceeds it" has 20 KB).
testUnless(missing)(
  "h2spec: every case passes, strict ones too, with the smallest frame size",
  async () => {
    const verdict = await runH2spec({ ...DEFAULT_SETTINGS, maxFrameBytes: FRAME_BYTES_MIN }, []);
    if (verdict.failed > 0) throw new Error(verdict.output);
    expect(verdict.skipped).toBe(0);
    expect(verdict.total).toBeGreaterThanOrEqual(CASES_MIN);
  },
  CASES_TIMEOUT_MS,
);

testUnless(missing)(
  "h2spec: with the mesh's own settings (1 MiB frames, extended CONNECT) every case but that one passes",
  async () => {
    const verdict = await runH2spec({ ...DEFAULT_SETTINGS, enableConnectProtocol: true }, []);
    expect(verdict.total).toBeGreaterThanOrEqual(CASES_MIN);
    if (verdict.failed !== 1 || !verdict.output.includes("Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE")) throw new Error(verdict.output);
  },
  CASES_TIMEOUT_MS,
);
