"""docker-py as its users write it: from_env() and the models. Prints one JSON object: a section's report, or its traceback as text."""
import io
import json
import socket
import sys
import tarfile
import threading
import time
import traceback

import docker
from docker.types import Healthcheck, Mount, Ulimit

client = docker.from_env()


def tar_of(files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            info.mtime = 1_700_000_000
            archive.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


def raised(call):
    """The type and the code of what a call raises."""
    try:
        call()
    except docker.errors.DockerException as error:
        status = getattr(error, "status_code", None)
        return {"type": type(error).__name__, "status": status, "text": str(getattr(error, "explanation", error))}
    return None


def raw(connection):
    """The socket below what attach_socket and exec_run return: with TLS it is that itself."""
    return getattr(connection, "_sock", connection)


def until(condition, limit_s=20):
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(condition)
        time.sleep(0.1)


def sleeping(**options):
    return client.containers.run("bb", ["sleep", "1000"], detach=True, **options)


def system():
    return {
        "ping": client.ping(),
        "api": client.api._version,
        "os": client.version()["Os"],
        "info": {key: client.info()[key] for key in ("OSType", "Driver", "IndexServerAddress")},
        "df": sorted(client.df()),
        "bases": [image.tags for image in client.images.list()],
    }


def run():
    said = client.containers.run("bb", ["sh", "-c", "echo $WORD; echo error >&2"], remove=True, stderr=True, environment={"WORD": "said"})
    streamed = client.containers.run("bb", "sh -c 'for i in 1 2 3; do echo $i; done'", stream=True, remove=True)
    try:
        client.containers.run("bb", ["sh", "-c", "echo why >&2; exit 9"], remove=True)
        failed = None
    except docker.errors.ContainerError as error:
        failed = {"status": error.exit_status, "stderr": error.stderr.decode()}
    gone = client.containers.run("bb", "true", detach=True, remove=True)
    until(lambda: raised(gone.reload) is not None)
    tty = client.containers.run("bb", "sh -c 'test -t 1 && echo terminal'", tty=True, remove=True)
    return {
        "said": sorted(said.decode().split()),
        "streamed": [line.decode() for line in streamed],
        "failed": failed,
        "gone": raised(gone.reload),
        "tty": tty.decode(),
        "left": [container.name for container in client.containers.list(all=True)],
    }


def options():
    network = client.networks.create("options", driver="bridge", labels={"of": "sdk"})
    container = client.containers.run(
        "bb",
        ["sh", "-c", "touch /ready; while true; do echo reached | nc -l -p 80; done"],
        name="options",
        detach=True,
        environment={"A": "1", "B": None},
        healthcheck=Healthcheck(test=["CMD", "test", "-f", "/ready"], interval=500_000_000, retries=20),
        hostname="named",
        init=True,
        labels=["one", "two"],
        mem_limit="64m",
        mounts=[Mount("/scratch", None, type="tmpfs", tmpfs_size=1024 * 1024)],
        network="options",
        nano_cpus=500_000_000,
        ports={"80/tcp": ("127.0.0.1", None)},
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
        tmpfs={"/more": "size=1m"},
        ulimits=[Ulimit(name="nofile", soft=100, hard=200)],
        user="0",
        volumes={"kept": {"bind": "/data", "mode": "rw"}},
        working_dir="/tmp",
    )

    def healthy():
        container.reload()
        return container.attrs["State"]["Health"]["Status"] == "healthy"

    until(healthy)
    port = int(container.ports["80/tcp"][0]["HostPort"])
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        reached = connection.makefile().read()
    attrs = container.attrs
    report = {
        "reached": reached,
        "status": container.status,
        "labels": container.labels,
        "image": container.image.tags,
        "hostname": attrs["Config"]["Hostname"],
        "env": [entry for entry in attrs["Config"]["Env"] if entry[:1] in "AB"],
        "memory": attrs["HostConfig"]["Memory"],
        "cpus": attrs["HostConfig"]["NanoCpus"],
        "networks": list(attrs["NetworkSettings"]["Networks"]),
        "members": [member.name for member in client.networks.get(network.id).containers],
        "mounts": sorted((mount["Type"], mount["Destination"]) for mount in attrs["Mounts"]),
        "limits": container.exec_run("sh -c 'ulimit -n; pwd; hostname'").output.decode().split(),
    }
    container.remove(force=True, v=True)
    network.remove()
    client.volumes.get("kept").remove()
    return report


def streams():
    container = client.containers.create("bb", ["cat"], stdin_open=True, detach=True)
    attached = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    container.start()
    raw(attached).sendall(b"through attach\n")
    echoed = raw(attached).recv(4096)
    attached.close()
    container.remove(force=True)

    container = client.containers.create("bb", ["sh", "-c", "sleep 0.5; echo out; echo error >&2"], detach=True)
    output = container.attach(stream=True, demux=True)
    container.start()
    demuxed = sorted([list(map(lambda part: part and part.decode(), pair)) for pair in output], key=str)
    container.wait()
    container.remove()

    container = client.containers.run("bb", ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.3; done"], detach=True)
    followed = [line.decode() for line in container.logs(stream=True, follow=True)]
    status = container.wait()
    report = {
        "echoed": echoed[8:].decode(),
        "header": list(echoed[:8]),
        "demuxed": demuxed,
        "followed": followed,
        "status": status["StatusCode"],
        "tail": container.logs(tail=1).decode(),
        "stamped": container.logs(timestamps=True, tail=1).decode(),
    }
    container.remove()
    return report


def execs():
    container = sleeping()
    plain = container.exec_run(["sh", "-c", "echo out; echo error >&2; exit 4"], demux=True)
    stream = container.exec_run(["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done"], stream=True)
    lines = [chunk.decode() for chunk in stream.output]
    tty = container.exec_run("sh -c 'test -t 1 && echo terminal'", tty=True)
    detached = container.exec_run("sleep 5", detach=True)
    _, duplex = container.exec_run(["cat"], stdin=True, socket=True)
    raw(duplex).sendall(b"through exec\n")
    echoed = raw(duplex).recv(4096)
    duplex.close()
    user = container.exec_run("sh -c 'id -u; echo $WORD; pwd'", user="7", environment={"WORD": "said"}, workdir="/tmp")
    report = {
        "plain": [plain.exit_code, *[part.decode() for part in plain.output]],
        "lines": "".join(lines),
        "chunks": len(lines),
        "tty": tty.output.decode(),
        "detached": [detached.exit_code, detached.output],
        "echoed": echoed[8:].decode(),
        "user": user.output.decode().split(),
        "missing": container.exec_run("none").exit_code,
    }
    container.remove(force=True)
    return report


def files():
    container = sleeping()
    put = container.put_archive("/tmp", tar_of({"dir/file": "put\n"}))
    bits, stat = container.get_archive("/tmp/dir/file")
    with tarfile.open(fileobj=io.BytesIO(b"".join(bits))) as archive:
        got = archive.extractfile("file").read().decode()
    exported = io.BytesIO(b"".join(container.export()))
    report = {
        "put": put,
        "got": got,
        "stat": [stat["name"], stat["size"], stat["linkTarget"]],
        "diff": [change["Path"] for change in container.diff()],
        "exported": "tmp/dir/file" in tarfile.open(fileobj=exported).getnames(),
        "missing": raised(lambda: container.get_archive("/none")),
    }
    image = container.commit("committed", "v1", message="from python", author="me", changes=["LABEL a=b"])
    report["committed"] = [image.tags, image.labels, image.attrs["Comment"], image.attrs["Author"]]
    container.remove(force=True)
    client.images.remove("committed:v1")
    return report


def states():
    container = sleeping(name="before", labels={"state": "kept"})
    container.rename("after")
    seen = [container.status]

    def note():
        container.reload()
        seen.append(container.status)

    note()
    container.pause()
    note()
    container.unpause()
    note()
    stats = container.stats(stream=False)
    line = next(container.stats(decode=True, stream=True))
    top = container.top(ps_args="-ef")
    updated = container.update(mem_limit="96m", memswap_limit="96m")
    container.restart(timeout=1)
    note()
    container.kill("SIGKILL")
    code = container.wait()["StatusCode"]
    note()
    container.start()
    container.stop(timeout=1)
    note()
    stopped = raised(container.stop)
    report = {
        "seen": seen,
        "name": container.name,
        "stats": [stats["name"], line["memory_stats"]["limit"], "eth0" in line["networks"]],
        "top": top["Processes"][0][-1],
        "titles": top["Titles"],
        "updated": updated,
        "memory": container.attrs["HostConfig"]["Memory"],
        "code": code,
        "stopped": stopped,
        "filtered": [found.name for found in client.containers.list(all=True, filters={"label": "state=kept", "status": "exited"})],
    }
    bridge = container.attrs["NetworkSettings"]["Networks"]["bridge"]
    report["network"] = [bridge["NetworkID"] == client.networks.get("bridge").id, bridge["EndpointID"]]
    report["pruned"] = client.containers.prune({"label": "state=kept"})["ContainersDeleted"] == [container.id]
    return report


def images():
    context = {
        "Dockerfile": "FROM bb\nARG WORD\nCOPY said /said\nRUN echo $WORD >> /said\nLABEL by=python\nCMD cat /said\n",
        "said": "copied\n",
    }
    built, log = client.images.build(
        fileobj=io.BytesIO(tar_of(context)), custom_context=True, tag="built:v1", buildargs={"WORD": "argued"}, rm=True, forcerm=True
    )
    steps = [line["stream"] for line in log if line.get("stream", "").startswith("Step")]
    ran = client.containers.run("built:v1", remove=True).decode()
    try:
        client.images.build(fileobj=io.BytesIO(b"FROM bb\nRUN exit 3\n"), rm=True, forcerm=True)
        failed = None
    except docker.errors.BuildError as error:
        failed = str(error)
    tagged = built.tag("acme/other", "v2")
    built.reload()
    tags = sorted(built.tags)
    saved = b"".join(built.save(named="built:v1"))
    client.images.remove("acme/other:v2")
    client.images.remove("built:v1")
    loaded = client.images.load(saved)
    report = {
        "steps": len(steps),
        "ran": ran,
        "failed": failed,
        "tagged": tagged,
        "tags": tags,
        "history": [layer["CreatedBy"] for layer in built.history()][0],
        "loaded": [image.tags for image in loaded],
        "same": loaded[0].id == built.id,
        "labels": loaded[0].labels,
        "listed": [image.tags for image in client.images.list(name="built", filters={"label": "by=python"})],
    }
    client.images.remove("built:v1")
    report["pruned"] = sorted(client.images.prune({"dangling": True}))
    return report


def networks():
    back = client.networks.create("back", internal=True, check_duplicate=True)
    container = sleeping(name="member")
    back.connect(container, aliases=["also"])
    back.reload()
    members = [member.name for member in back.containers]
    asked = client.containers.run("bb", "nslookup also", network="back", remove=True).decode()
    busy = raised(back.remove)
    back.disconnect(container, force=True)
    listed = [network.name for network in client.networks.list(names=["back"], greedy=True)]
    container.remove(force=True)
    pruned = client.networks.prune()
    return {
        "members": members,
        "resolved": "also" in asked,
        "busy": busy,
        "listed": listed,
        "internal": back.attrs["Internal"],
        "predefined": sorted(network.name for network in client.networks.list(filters={"type": "builtin"})),
        "pruned": pruned,
        "gone": raised(back.reload),
    }


def volumes():
    volume = client.volumes.create("tardis", driver="local", labels={"of": "sdk"})
    client.containers.run("bb", "sh -c 'echo kept > /data/file'", volumes=["tardis:/data"], remove=True)
    read = client.containers.run("bb", "cat /data/file", volumes={"tardis": {"bind": "/data", "mode": "ro"}}, remove=True)
    report = {
        "read": read.decode(),
        "attrs": [volume.name, volume.attrs["Driver"], volume.attrs["Labels"]],
        "listed": [found.name for found in client.volumes.list(filters={"label": "of=sdk"})],
        "host": raised(lambda: client.containers.create("bb", "true", volumes=["/etc:/host"])),
    }
    report["pruned"] = client.volumes.prune({"all": True})["VolumesDeleted"]
    report["gone"] = raised(volume.reload)
    return report


def events():
    seen = []
    stream = client.events(decode=True, filters={"type": "container", "label": "watched"})

    def watch():
        for event in stream:
            seen.append(event["Action"])
            if event["Action"] == "destroy":
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    since = int(time.time())
    container = client.containers.create("bb", "true", labels={"watched": "yes"})
    container.start()
    container.wait()
    container.remove()
    watcher.join(10)
    stream.close()
    past = client.events(decode=True, since=since, until=int(time.time()) + 1, filters={"event": "die", "container": container.id})
    return {"seen": seen, "past": [[event["Action"], event["Actor"]["Attributes"]["exitCode"]] for event in past]}


def errors():
    container = client.containers.create("bb", "true", name="taken")
    report = {
        "container": raised(lambda: client.containers.get("never")),
        "image": raised(lambda: client.images.get("never")),
        "create": raised(lambda: client.api.create_container("never", "true")),
        "conflict": raised(lambda: client.containers.create("bb", "true", name="taken")),
        "running": raised(lambda: container.kill()),
        "exec": raised(lambda: container.exec_run("true")),
        "network": raised(lambda: client.networks.get("never")),
        "volume": raised(lambda: client.volumes.get("never")),
        "pull": raised(lambda: client.images.pull("registry.invalid/none", tag="latest")),
        "login": raised(lambda: client.login("xpto", "dang", registry="registry.invalid")),
        "privileged": raised(lambda: client.containers.create("bb", "true", privileged=True)),
        "swarm": raised(lambda: client.services.list()),
    }
    container.remove()
    return report


report = {}
for section in (system, run, options, streams, execs, files, states, images, networks, volumes, events, errors):
    try:
        report[section.__name__] = section()
    except Exception:
        report[section.__name__] = traceback.format_exc()
report["left"] = [container.name for container in client.containers.list(all=True)]
client.close()
json.dump(report, sys.stdout)
