// A workload that no record of the configuration describes: near to nobody, with no labels and no identity but what is said of it.

import type { TrustDomain } from "../core/spiffe.ts";
import type { Workload } from "../mesh/records.ts";

type Said = Pick<Workload, "uid" | "name" | "namespace" | "network" | "provenance"> & Partial<Pick<Workload, "serviceAccount" | "hostname">>;

export function madeWorkload({ uid, name, namespace, network, provenance, serviceAccount = "", hostname = "" }: Said): Workload {
  return {
    uid, name, namespace, clusterId: "", trustDomain: "" as TrustDomain, serviceAccount, network, node: "", addresses: [], hostname,
    tunnelProtocol: "TCP", nativeTunnel: false, hostNetwork: false, canonicalName: name, canonicalRevision: "", workloadType: "deployment", workloadName: name, app: "", version: "",
    locality: { region: "", zone: "", subzone: "" }, status: "healthy", capacity: 1, services: [], authorizationPolicies: [], waypoints: [], networkGateway: null, applicationTunnel: null, provenance,
  };
}
