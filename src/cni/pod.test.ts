import { describe, expect, test } from "bun:test";
import { membershipOf } from "./membership.ts";
import { podOfCgroup } from "./pod-namespaces.ts";
import { podCapture, RULES_OWNER } from "./pod-capture.ts";
import { parsePod, type Pod } from "./pod.ts";

const OBJECT = {
  metadata: { uid: "u1", namespace: "shop", name: "web-1" },
  spec: { nodeName: "a", containers: [{ name: "app", ports: [{ name: "http", containerPort: 8080 }] }] },
  status: { phase: "Running", podIPs: [{ ip: "198.18.1.7" }, { ip: "2001:db8::7" }] },
};
const pod = (change: (object: typeof OBJECT) => object): Pod => {
  const parsed = parsePod(change(structuredClone(OBJECT)));
  if (parsed === null) throw new Error("no pod");
  return parsed;
};
const PLAIN = pod((object) => object);

describe("a pod", () => {
  test("what the API leaves out has its default", () => {
    expect(PLAIN).toEqual({
      uid: "u1", namespace: "shop", name: "web-1", node: "a", serviceAccount: "default", labels: {}, annotations: {}, hostNetwork: false, addresses: ["198.18.1.7", "2001:db8::7"], ended: false, probePorts: [],
    });
    expect(parsePod({ metadata: { name: "x" } })).toBeNull();
  });

  test("probed ports: by number, by name and by number as text, of every container and hook; another host's are not its own", () => {
    const probed = pod((object) => ({
      ...object,
      spec: {
        ...object.spec,
        containers: [
          { ...object.spec.containers[0], livenessProbe: { httpGet: { port: "http" } }, readinessProbe: { tcpSocket: { port: "9091" } }, startupProbe: { exec: { command: ["true"] } } },
          { name: "b", readinessProbe: { grpc: { port: 9090 } }, lifecycle: { postStart: { httpGet: { port: 7000 } }, preStop: { httpGet: { port: 7001, host: "198.51.100.9" } } } },
        ],
        initContainers: [{ name: "sidecar", startupProbe: { httpGet: { port: 6000 } }, livenessProbe: { httpGet: { port: "unknown" } } }],
      },
    }));
    expect(probed.probePorts).toEqual([6000, 7000, 8080, 9090, 9091]);
  });
});

describe("membership", () => {
  const ambient = { "istio.io/dataplane-mode": "ambient" };
  const none = { "istio.io/dataplane-mode": "none" };
  const CASES: readonly [string, Pod, Record<string, string>, boolean][] = [
    ["no label anywhere", PLAIN, {}, false],
    ["the namespace's label", PLAIN, ambient, true],
    ["its own label in a namespace without one", { ...PLAIN, labels: ambient }, {}, true],
    ["its own none in a namespace that is in", { ...PLAIN, labels: none }, ambient, false],
    ["a namespace that says none", PLAIN, none, false],
    ["its own label in a namespace that says none", { ...PLAIN, labels: ambient }, none, true],
    ["the node's network", { ...PLAIN, hostNetwork: true, labels: ambient }, ambient, false],
    ["a sidecar", { ...PLAIN, annotations: { "sidecar.istio.io/status": "{}" } }, ambient, false],
    ["an excluded namespace", { ...PLAIN, namespace: "kube-system", labels: ambient }, ambient, false],
  ];
  for (const [what, subject, labels, inMesh] of CASES) {
    test(`${what}: ${inMesh ? "in" : "out"}`, () => expect(membershipOf(subject, labels, ["kube-system"]).inMesh).toBe(inMesh));
  }
});

describe("capture", () => {
  const settings = { dnsCapture: true, packetMark: 0x539, probeAddresses: [] };

  test("annotations say what is captured", () => {
    const { options, ignored } = podCapture({
      ...PLAIN, probePorts: [8080],
      annotations: {
        "ambient.istio.io/dns-capture": "false", "ambient.istio.io/bypass-inbound-capture": "true", "traffic.sidecar.istio.io/excludeOutboundPorts": "22, 53",
        "traffic.sidecar.istio.io/excludeOutboundIPRanges": "198.51.100.0/24",
      },
    }, settings);
    expect(options).toMatchObject({ owner: RULES_OWNER, dnsCapture: false, inboundCapture: false, probes: { ports: [8080] }, exclusions: { outboundPorts: [22, 53] } });
    expect(options.exclusions.outboundCidrs).toHaveLength(1);
    expect(ignored).toEqual([]);
  });

  test("one that is not understood leaves more captured, never less, and is told", () => {
    const { options, ignored } = podCapture({ ...PLAIN, annotations: { "traffic.sidecar.istio.io/excludeInboundPorts": "8080,http", "ambient.istio.io/bypass-inbound-capture": "yes" } }, settings);
    expect(options).toMatchObject({ inboundCapture: true, probes: null, exclusions: { inboundPorts: [] } });
    expect(ignored).toHaveLength(2);
  });
});

describe("the pod of a process", () => {
  const UID = "6a0b3d8e-6d1f-4f0a-8f8e-0d6f6d1c2b3a";
  const OTHER = "11111111-2222-3333-4444-555555555555";
  test("cgroupfs, systemd, version 1 and 2, seen from inside and from outside", () => {
    expect(podOfCgroup(`12:pids:/kubepods/besteffort/pod${UID}/c0ffee\n`)).toBe(UID);
    expect(podOfCgroup(`0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${UID.replaceAll("-", "_")}.slice/cri-containerd-c0ffee.scope\n`)).toBe(UID);
    expect(podOfCgroup(`0::/../../pod${UID}/c0ffee`)).toBe(UID);
    expect(podOfCgroup("0::/system.slice/kubelet.service\n")).toBeNull();
    expect(podOfCgroup("0::/kubepods/podnonsense/x\n")).toBeNull();
  });

  test("groups that a pod makes inside its own do not make it another", () => {
    expect(podOfCgroup(`0::/kubepods/pod${UID}/c0ffee/pod${OTHER}/x\n`)).toBe(UID);
  });
});
