// `weft control` as the process that an installation runs, on loopback beside the API server of the test.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { cpuSeconds } from "../../bench/lib/accounting.ts";
import { logPath } from "../kit/log-path.ts";
import { residentBytes, sumOfSamples } from "../kit/process-figures.ts";
import type { ApiServer } from "./api-server.ts";
import { until } from "../kit/until.ts";

const ROOT = resolve(import.meta.dir, "../..");
export const CONTROL_NAMESPACE = "istio-system";
let nextPort = 21_000;

export interface ControlRole {
  readonly name: string;
  /** xDS and CA. */
  readonly port: number;
  readonly adminPort: number;
  readonly metricsPort: number;
  /** Memory in use, bytes. */
  residentBytes(): number;
  cpuSeconds(): number;
  log(): string;
  /** What its readiness port says: the status, and the lines below it. */
  readiness(): Promise<string>;
  /** The sum of a metric's samples. */
  metric(name: string): Promise<number>;
  ready(): Promise<void>;
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** After `kill`: the same replica with the same ports, and nothing of what it had on disk. */
  restart(): Promise<void>;
}

const WEFT = process.env["WEFT_BINARY"] === undefined ? [process.execPath, join(ROOT, "src/main.ts")] : [process.env["WEFT_BINARY"]];

/** Starts one replica; await `ready` when it should be. @param weft the program, where it is another one */
export function startControl(server: Pick<ApiServer, "kubeconfig">, name: string, flags: readonly string[] = [], logLevel = "debug", weft: readonly string[] = WEFT): ControlRole {
  const directory = mkdtempSync(join(tmpdir(), "weft-control-"));
  const [port, adminPort, metricsPort, readinessPort] = [nextPort++, nextPort++, nextPort++, nextPort++];
  const logFile = logPath(directory, "log");
  writeFileSync(logFile, "");
  const launch = () => Bun.spawn([
    ...weft, "control", "--kubeconfig", server.kubeconfig, "--state", join(directory, "state"), "--ca-listen", `127.0.0.1:${port}`,
    "--admin-address", `127.0.0.1:${adminPort}`, "--metrics-address", `127.0.0.1:${metricsPort}`, "--readiness-address", `127.0.0.1:${readinessPort}`,
    "--pod-namespace", CONTROL_NAMESPACE, "--pod-name", name, "--log", logLevel, "--log-file", logFile, ...flags,
  ], { stdio: ["ignore", "ignore", "inherit"], env: { ...process.env, KUBECONFIG: "" } });
  let child = launch();
  const log = (): string => readFileSync(logFile, "utf8");
  return {
    name, port, adminPort, metricsPort, log,
    residentBytes: () => residentBytes(child.pid),
    cpuSeconds: () => cpuSeconds([child.pid]),
    readiness: () => fetch(`http://127.0.0.1:${readinessPort}/healthz/ready`).then(async (answer) => `${answer.status} ${await answer.text()}`, () => "nobody listens"),
    metric: async (name) => sumOfSamples(await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text(), name),
    async ready() {
      await until(`${name} is ready`, 60_000, async () => {
        if (child.exitCode !== null) throw new Error(`${name} ended with status ${child.exitCode}:\n${log().slice(-3000)}`);
        return (await this.readiness()).startsWith("200 ");
      }).catch((cause: unknown) => {
        throw new Error(`${String(cause)}\n${log().slice(-3000)}`);
      });
    },
    async restart() {
      mkdirSync(directory, { recursive: true });
      writeFileSync(logFile, "");
      child = launch();
      await this.ready();
    },
    async kill(signal = "SIGKILL") {
      child.kill(signal);
      await child.exited;
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
