import { describe, expect, test } from "bun:test";
import { ACCEPTED, condition, RESOLVED, type ResourceStatus } from "../../resources/l7/status.ts";
import { CONTROLLER_NAME, type Finding, type StatusSubject, wantedStatus } from "./status-shape.ts";

const THEN = "2026-01-01T00:00:00Z";
const NOW = "2026-02-02T00:00:00Z";
const web = { group: "", kind: "Service", name: "web" };
const ingress = { name: "ingress" };

const subject = (kind: string, spec: StatusSubject["spec"], status: StatusSubject["status"] = {}, generation = 3): StatusSubject => ({ kind, namespace: "shop", name: "a", generation, spec, status });
const status = (parents: ResourceStatus["parents"]): ResourceStatus => ({ kind: "HTTPRoute", namespace: "shop", name: "a", resourceVersion: "", parents, conditions: [] });
const found = (more: Partial<Finding> = {}): Finding => ({ status: null, diagnostics: [], addresses: [], binding: null, ...more });
const said = (type: string, holds: string, at = THEN, generation = 3, reason = type) => ({ type, status: holds, reason, message: "", observedGeneration: generation, lastTransitionTime: at });

describe("routes", () => {
  const finding = found({ status: status([{ path: ["spec", "parentRefs", 1], conditions: [ACCEPTED, RESOLVED] }]) });
  const spec = { parentRefs: [ingress, web] };
  const ours = { parentRef: web, controllerName: CONTROLLER_NAME, conditions: [said("Accepted", "True", NOW), said("ResolvedRefs", "True", NOW)] };
  const theirs = { parentRef: ingress, controllerName: "example.com/ingress", conditions: [said("Accepted", "False", THEN)] };

  test("get an entry for each parent of the mesh, beside those of others", () => {
    expect(wantedStatus(subject("HTTPRoute", spec, { parents: [theirs] }), finding, NOW)).toEqual({ parents: [theirs, ours] });
  });
  test("are not written when all is as it should be, whenever that was", () => {
    expect(wantedStatus(subject("HTTPRoute", spec, { parents: [theirs, { ...ours, conditions: [said("Accepted", "True", THEN), said("ResolvedRefs", "True", THEN)] }] }), finding, NOW)).toBeNull();
  });
  test("lose our entry with the parent, and nobody else's", () => {
    expect(wantedStatus(subject("HTTPRoute", { parentRefs: [ingress] }, { parents: [theirs, ours] }), found({ status: status([]) }), NOW)).toEqual({ parents: [theirs] });
  });
  test("of gateways alone are none of our affair", () => {
    expect(wantedStatus(subject("HTTPRoute", { parentRefs: [ingress] }, { parents: [theirs] }), found({ status: status([]) }), NOW)).toBeNull();
    expect(wantedStatus(subject("HTTPRoute", { parentRefs: [ingress] }), found(), NOW)).toBeNull();
  });
  test("keep the moment of the last change, and a condition that holds no more goes", () => {
    const before = { ...ours, conditions: [said("Accepted", "True", THEN, 2), said("ResolvedRefs", "False", THEN, 2), said("PartiallyInvalid", "True", THEN, 2), said("example.com/Checked", "True", THEN, 2)] };
    const wanted = wantedStatus(subject("HTTPRoute", spec, { parents: [before] }), finding, NOW);
    expect(wanted).toEqual({ parents: [{ ...ours, conditions: [said("example.com/Checked", "True", THEN, 2), said("Accepted", "True", THEN), said("ResolvedRefs", "True", NOW)] }] });
  });
  test("that cannot be read say so for each of their parents", () => {
    const broken = found({ diagnostics: [{ severity: "error", code: "unknown_field", resource: "HTTPRoute shop/a", fieldPath: "spec.rules[0].x", message: "unknown field" }] });
    expect(wantedStatus(subject("HTTPRoute", spec), broken, NOW)).toMatchObject({ parents: [{ parentRef: web, conditions: [{ type: "Accepted", status: "False", reason: "UnsupportedValue", message: "spec.rules[0].x: unknown field" }] }] });
  });
});

describe("Gateways", () => {
  const spec = { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }, { name: "web", port: 80, protocol: "HTTP" }] };
  const accepted: ResourceStatus = { ...status([]), kind: "Gateway", conditions: [ACCEPTED, condition("Programmed", true, "Programmed")] };

  test("are programmed once there is an address", () => {
    const addresses = [{ type: "IPAddress", value: "198.19.0.7" }, { type: "IPAddress", value: "2001:db8:2::7" }, { type: "Hostname", value: "a.shop.svc.cluster.local" }] as const;
    expect(wantedStatus(subject("Gateway", spec), found({ status: accepted }), NOW)).toMatchObject({ conditions: [{ type: "Accepted", status: "True" }, { type: "Programmed", status: "False", reason: "AddressNotAssigned" }], addresses: [] });
    expect(wantedStatus(subject("Gateway", spec), found({ status: accepted, addresses }), NOW)).toMatchObject({
      conditions: [{ type: "Accepted", status: "True" }, { type: "Programmed", status: "True" }], addresses: [...addresses],
      listeners: [{ name: "mesh", conditions: [{ status: "True" }, { status: "True" }, { status: "True" }] }, { name: "web", conditions: [{ status: "False", reason: "UnsupportedProtocol" }, { status: "False" }, { status: "True" }] }],
    });
  });
});

describe("Gateways to another network", () => {
  const spec = { gatewayClassName: "istio-remote", listeners: [{ name: "far", port: 15008, protocol: "HBONE" }] };
  const diagnostic = (severity: "error" | "warning", code: "not_allowed" | "conflict" | "missing_field") => ({ severity, code, resource: "Gateway shop/a", fieldPath: "metadata", message: "why" });
  const accepted = (finding: Finding) => wantedStatus(subject("Gateway", spec), finding, NOW);

  test("say whether they are used, and why not", () => {
    expect(accepted(found())).toEqual({ conditions: [said("Accepted", "True", NOW), said("Programmed", "True", NOW)] });
    for (const [diagnostics, reason] of [[[diagnostic("error", "not_allowed")], "NamespaceNotAllowed"], [[diagnostic("warning", "conflict")], "NotUsed"], [[diagnostic("error", "missing_field")], "Invalid"]] as const) {
      expect(accepted(found({ diagnostics }))).toMatchObject({ conditions: [{ type: "Accepted", status: "False", reason, message: "metadata: why" }, { type: "Programmed", status: "False" }] });
    }
  });
});

describe("services", () => {
  const accepted = { bound: true, reason: "WaypointAccepted", message: "Successfully attached to waypoint infra/wp" } as const;
  const istio = (holds: string, reason: string, message: string, at: string) => ({ type: "istio.io/WaypointBound", status: holds, reason, message, observedGeneration: 3, lastTransitionTime: at });

  test("that ask for no waypoint are none of our affair", () => {
    expect(wantedStatus(subject("Service", {}, { loadBalancer: {} }), found(), NOW)).toBeNull();
  });
  test("say which waypoint they have, or why none, and nothing when they ask no more", () => {
    const theirs = said("example.com/Ready", "True");
    const bound = wantedStatus(subject("Service", {}, { conditions: [theirs] }), found({ binding: accepted }), NOW)!;
    expect(bound).toEqual({ conditions: [theirs, istio("True", "WaypointAccepted", accepted.message, NOW)] });
    const denied = { bound: false, reason: "AttachmentDenied", message: "no" } as const;
    expect(wantedStatus(subject("Service", {}, bound), found({ binding: denied }), NOW)).toEqual({ conditions: [theirs, istio("False", "AttachmentDenied", "no", NOW)] });
    expect(wantedStatus(subject("Service", {}, bound), found({ binding: accepted }), NOW)).toBeNull();
    expect(wantedStatus(subject("Service", {}, bound), found(), NOW)).toEqual({ conditions: [theirs] });
  });
  test("have no generation, of which an API server keeps nothing", () => {
    const wanted = wantedStatus(subject("Service", {}, {}, 0), found({ binding: accepted }), NOW) as { conditions: object[] };
    expect(Object.keys(wanted.conditions[0]!)).not.toContain("observedGeneration");
    expect(wantedStatus(subject("Service", {}, wanted, 0), found({ binding: accepted }), NOW)).toBeNull();
  });
  test("of a ServiceEntry stand beside what else is said of it", () => {
    const wanted = wantedStatus(subject("ServiceEntry", {}), found({ binding: accepted }), NOW)!;
    expect(wanted).toMatchObject({ conditions: [{ type: "weft.dev/Accepted", status: "True" }, { type: "istio.io/WaypointBound", status: "True" }] });
    expect(wantedStatus(subject("ServiceEntry", {}, wanted), found(), NOW)).toMatchObject({ conditions: [{ type: "weft.dev/Accepted" }] });
  });
});

describe("other kinds", () => {
  test("have one condition of ours beside those of others", () => {
    const istio = said("ZtunnelAccepted", "True");
    expect(wantedStatus(subject("AuthorizationPolicy", {}, { conditions: [istio] }), found(), NOW)).toEqual({ conditions: [istio, { ...said("weft.dev/Accepted", "True", NOW), reason: "Accepted" }] });
    const warned = found({ diagnostics: [{ severity: "warning", code: "not_supported", resource: "", fieldPath: "spec.x", message: "is not there" }] });
    expect(wantedStatus(subject("TrafficPolicy", {}), warned, NOW)).toMatchObject({ conditions: [{ status: "True", message: "spec.x: is not there" }] });
  });
});
