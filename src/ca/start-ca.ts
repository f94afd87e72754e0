// The CA from its settings: opens it, and its port where one is wanted. For `weft ca` and `weft up`.

import { readFileSync } from "node:fs";
import { formatSocketAddress } from "../core/ip.ts";
import { systemTimers } from "../net/timers.ts";
import type { ProcessListeners } from "../runtime/process-listeners.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { Settings } from "../runtime/settings.ts";
import type { PlugInCa } from "./authority-store.ts";
import { authorityOptions } from "./authority-options.ts";
import { type CertificateAuthority, openCertificateAuthority } from "./certificate-authority.ts";
import type { CaServer } from "./server.ts";
import { logCaEvent } from "./server-events.ts";
import { serverNames } from "./server-names.ts";

export interface RunningCa {
  readonly authority: CertificateAuthority;
  /** The port belongs to a successor: it is no longer served here. What is in this process still signs for it. */
  readonly handOver: () => Promise<void>;
  readonly close: () => Promise<void>;
}

const CLOSE_MS = 1_000;

/** @throws with a message for the operator when the CA or its port cannot be opened. */
export async function startCa(settings: Settings, runtime: Runtime, listeners: ProcessListeners): Promise<RunningCa> {
  const log = runtime.log.scope("ca");
  let server: CaServer | null = null;
  const opened = openCertificateAuthority({
    ...authorityOptions(settings, runtime.clock, log),
    plugIn: plugIn(settings),
    onChange: () => server?.renewServerCertificate(),
  });
  if (!opened.ok) throw new Error(opened.error.message);
  const authority = opened.value;
  if (settings.caListen !== null) server = await openPort(settings, runtime, authority, listeners);
  return {
    authority,
    handOver: async () => {
      authority.setWritable(false);
      await server?.drain(CLOSE_MS);
    },
    close: async () => {
      await server?.drain(CLOSE_MS);
      authority.destroy();
    },
  };
}

async function openPort(settings: Settings, runtime: Runtime, authority: CertificateAuthority, listeners: ProcessListeners): Promise<CaServer> {
  const log = runtime.log.scope("ca");
  const listen = settings.caListen!;
  if (settings.caTokens === null) throw new Error("--ca-listen needs --ca-tokens: without tokens the CA would refuse everybody");
  // The gRPC library comes in only where the port is open.
  const [{ CaServer }, { TokenFile }] = await Promise.all([import("./server.ts"), import("./tokens.ts")]);
  const tokens = TokenFile.open(settings.caTokens, (message) => log.warn(message));
  if (!tokens.ok) throw new Error(tokens.error);
  const server = new CaServer({
    authority: authority.authority,
    tokens: tokens.value,
    clock: runtime.clock,
    timers: systemTimers,
    serverNames: serverNames(listen.ip),
    record: authority.record,
    onEvent: (event) => logCaEvent(log, event),
  });
  const listener = listeners.listen("ca", listen);
  if (!listener.ok) throw new Error(`the CA ${listener.error}`);
  await server.listen({ fd: listener.value.fd });
  log.info("the CA listens", { address: formatSocketAddress(listen), root: authority.rootPath });
  return server;
}

function plugIn(settings: Settings): PlugInCa | null {
  const { caCertificate, caKey, caTrustBundle } = settings;
  if (caCertificate === null && caKey === null && caTrustBundle === null) return null;
  if (caCertificate === null || caKey === null || caTrustBundle === null) {
    throw new Error("a CA of your own needs all of --ca-certificate, --ca-key and --ca-trust-bundle");
  }
  return { chainPem: readFileSync(caCertificate, "utf8"), privateKeyPem: readFileSync(caKey, "utf8"), rootsPem: readFileSync(caTrustBundle, "utf8") };
}
