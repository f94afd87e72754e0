// Weft itself: `weft up` on each side, as a node would run it, both below one root. WEFT_BIN names another binary than the
// one built from this tree.

import { existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { must, run, until, type Server, type ServerOptions } from "../lib/process.ts";
import type { Node, Testbed } from "../l4/testbed.ts";
import type { Peer } from "./peer.ts";
import { Setup } from "./running.ts";

const ROOT = join(import.meta.dir, "../..");
const BUILT = join(ROOT, "dist/weft");
const SCRIPT = join(ROOT, "src/main.ts");
const READY_SECONDS = 20;
const READINESS_PORT = 15021;
const HBONE_PORT = 15008;

export const weft: Peer = {
  name: "weft",
  command: () => weftCommand().join(" "),
  missing: () => {
    const binary = process.env["WEFT_BIN"];
    return binary === undefined || existsSync(binary) ? null : `WEFT_BIN: no such file: ${binary}`;
  },
  idleMissing: () => null,
  tunnelPorts: [HBONE_PORT],
  hasSameNodePath: true,
  start: async (bed, placement) => {
    await using setup = new Setup();
    const authority = certificateAuthority(bed.folder);
    const nodes = placement === "across" ? [node(bed.client, "client"), node(bed.server, "server")] : [node(bed.client, "both")];
    const configuration = writeConfiguration(bed, nodes.length === 1);
    const started = nodes.map((one) => ({ ...one, server: setup.server(processOf({ bed, node: one.node, name: one.name, configuration, authority })) }));
    for (const { node: at, server } of started) await ready(at, server);
    return setup.running();
  },
};

const node = (at: Node, name: string): { readonly node: Node; readonly name: string } => ({ node: at, name });

/** The compiled binary unless a source file is newer: an old build must not be measured by mistake. */
export function weftCommand(): string[] {
  const given = process.env["WEFT_BIN"];
  if (given !== undefined) return [given];
  return existsSync(BUILT) && statSync(BUILT).mtimeMs >= newestSourceMs() ? [BUILT] : [process.execPath, SCRIPT];
}

function newestSourceMs(): number {
  const sources = [...new Bun.Glob("src/**/*.ts").scanSync({ cwd: ROOT })].filter((file) => !file.endsWith(".test.ts"));
  return Math.max(...sources.map((file) => statSync(join(ROOT, file)).mtimeMs));
}

interface WeftProcess {
  readonly bed: Testbed;
  readonly node: Node;
  readonly name: string;
  readonly configuration: string;
  readonly authority: Authority;
}

function processOf({ bed, node: at, name, configuration, authority }: WeftProcess): ServerOptions {
  const state = join(bed.folder, `weft-state-${name}`);
  mkdirSync(state, { recursive: true, mode: 0o700 });
  const flags = {
    "--config": configuration,
    "--state": state,
    "--node": name,
    "--ca-certificate": authority.certificate,
    "--ca-key": authority.key,
    "--ca-trust-bundle": authority.root,
  };
  return {
    argv: [...at.enter, ...weftCommand(), "up", ...Object.entries(flags).flat()],
    logFile: join(bed.folder, `weft-${name}.log`),
  };
}

/** The two workloads in one opted-in namespace, as WorkloadEntries. */
function writeConfiguration(bed: Testbed, sameNode: boolean): string {
  const folder = join(bed.folder, "weft-config");
  mkdirSync(folder, { recursive: true });
  const entry = (at: Node, name: string): string => `
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: ${name}
  namespace: bench
  labels: { app: ${name} }
  annotations:
    weft.dev/node: ${sameNode ? "both" : name}
    weft.dev/netns: ${at.namespacePath}
spec:
  address: ${at.ip}
  serviceAccount: ${name}
`;
  const namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: bench\n  labels: { istio.io/dataplane-mode: ambient }\n";
  writeFileSync(join(folder, "bench.yaml"), namespace + entry(bed.client, "client") + entry(bed.server, "server"));
  return folder;
}

interface Authority {
  readonly root: string;
  readonly certificate: string;
  readonly key: string;
}

/** A root, and the intermediate that both nodes sign with. */
export function certificateAuthority(folder: string): Authority {
  const file = (name: string): string => join(folder, `weft-${name}`);
  const made = { root: file("root.pem"), certificate: file("intermediate.pem"), key: file("intermediate.key") };
  if (existsSync(made.certificate)) return made;
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"];
  must(["openssl", "req", "-x509", ...key, "-keyout", file("root.key"), "-out", made.root, "-days", "30", "-subj", "/O=bench/CN=root", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
  must(["openssl", "req", ...key, "-keyout", made.key, "-out", file("intermediate.csr"), "-subj", "/O=bench/CN=intermediate"]);
  writeFileSync(file("extensions"), "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n");
  must(["openssl", "x509", "-req", "-in", file("intermediate.csr"), "-CA", made.root, "-CAkey", file("root.key"), "-CAcreateserial", "-out", made.certificate, "-days", "30", "-extfile", file("extensions")]);
  return made;
}

const ready = (at: Node, server: Server): Promise<void> =>
  until(
    async () => {
      const asked = await run([...at.enter, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", `http://127.0.0.1:${READINESS_PORT}/healthz/ready`], { limitSeconds: 2 });
      return asked.stdout === "200";
    },
    `weft in ${at.namespace} is ready`,
    READY_SECONDS,
    server,
  );
