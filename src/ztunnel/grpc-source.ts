// A node whose certificates come from a CA on another machine.

import { grpcCertificates } from "../runtime/grpc-certificates.ts";
import type { Settings } from "../runtime/settings.ts";
import type { NodeParts } from "./run-node.ts";

/** @throws when --ca-address is not set: the settings' own check requires it where it matters. */
export async function grpcSource(settings: Settings): Promise<NodeParts> {
  const source = grpcCertificates(settings);
  return { source, crlPath: null, setWritable: () => {}, handOver: async () => {}, close: async () => source.destroy() };
}
