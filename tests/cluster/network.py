"""The network of the cluster. Every address is inside network namespaces that scripts/test-cluster makes.

The tests, the control plane and the databases run in one namespace, at MACHINE. Each node has a namespace of its own, each
pod has one too. Every packet of a pod passes its node, where kube-proxy translates the addresses of services.
"""

import subprocess

MACHINE = "198.18.0.1"
# Further addresses of it, from which callbacks are sent.
SENDERS = [f"198.18.0.{number}" for number in range(100, 200)]
PODS = "198.18.128.0/17"
SERVICES = "198.19.0.0/16"
# Services can have addresses of both families. Pods and nodes have IPv4 addresses only.
SERVICES_IPV6 = "2001:db8::/108"
BRIDGE = "nodes"


def ip(*words, namespace=None):
    where = ["-n", namespace] if namespace else []
    subprocess.run(["ip", *where, *words], check=True)


def setting(name, value, namespace=None):
    command = ["sysctl", "-qw", f"{name}={value}"]
    subprocess.run([*(inside(namespace) if namespace else []), *command], check=True)


def inside(namespace):
    """A command that runs another in a network namespace."""
    return ["nsenter", f"--net=/run/netns/{namespace}", "--"]


def make_machine():
    ip("link", "set", "lo", "up")
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("address", "add", f"{MACHINE}/24", "dev", BRIDGE)
    for address in SENDERS:
        ip("address", "add", f"{address}/32", "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")
    # kube-proxy replaces these addresses before a packet leaves.
    ip("route", "add", SERVICES, "dev", BRIDGE)
    setting("net.ipv4.ip_forward", 1)


def node_address(number):
    return f"198.18.0.{10 + number}"


def pod_prefix(number):
    return f"198.18.{128 + number}"


def make_node(name, number):
    ip("netns", "add", name)
    ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
    ip("link", "set", name, "master", BRIDGE, "up")
    ip("link", "set", "lo", "up", namespace=name)
    ip("address", "add", f"{node_address(number)}/24", "dev", "eth0", namespace=name)
    ip("link", "set", "eth0", "up", namespace=name)
    ip("route", "add", "default", "via", MACHINE, namespace=name)
    # The address that its pods use as their gateway.
    ip("address", "add", f"{pod_prefix(number)}.1/32", "dev", "lo", namespace=name)
    setting("net.ipv4.ip_forward", 1, namespace=name)
    ip("route", "add", f"{pod_prefix(number)}.0/24", "via", node_address(number))


def unplug_node(name):
    ip("link", "set", name, "down")


def remove_node(name, number):
    subprocess.run(["ip", "route", "del", f"{pod_prefix(number)}.0/24"], check=False, capture_output=True)
    ip("link", "del", name)
    ip("netns", "del", name)


def make_pod(namespace, interface, address, gateway):
    """Called in the namespace of the node, of which `interface` is its end of the pod's veth pair."""
    ip("netns", "add", namespace)
    ip("link", "add", interface, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    ip("link", "set", interface, "up")
    ip("route", "add", f"{address}/32", "dev", interface)
    setting(f"net.ipv4.conf.{interface}.proxy_arp", 1)
    ip("link", "set", "lo", "up", namespace=namespace)
    ip("address", "add", f"{address}/32", "dev", "eth0", namespace=namespace)
    ip("link", "set", "eth0", "up", namespace=namespace)
    ip("route", "add", gateway, "dev", "eth0", "scope", "link", namespace=namespace)
    ip("route", "add", "default", "via", gateway, namespace=namespace)


def remove_pod(namespace, interface):
    subprocess.run(["ip", "link", "del", interface], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)
