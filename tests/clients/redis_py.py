"""What redis-py does with a cluster of Paxoi: every reply must parse to what it gets from Redis.

Arguments: the ports of the three nodes. Works with redis-py 4 to 8; from 5 on it may speak RESP3.
"""

import sys
import time

import redis
from redis.cluster import RedisCluster

PORTS = [int(port) for port in sys.argv[1:]]


def connect(node, **options):
    return redis.Redis(port=PORTS[node], decode_responses=True, **options)


def raises(text, call):
    try:
        call()
    except redis.RedisError as error:
        assert text in str(error), error
    else:
        raise AssertionError(f"no error: {text}")


def strings(r, s):
    assert r.set("a", 1) is True and s.get("a") == "1" and s.get("none") is None
    assert r.set("a", 2, nx=True) is None and r.set("a", 2, xx=True) is True
    assert s.set("a", 3, get=True) == "2" and r.getset("a", 4) == "3"
    assert r.incr("a") == 5 and s.decr("a", 2) == 3 and r.incrbyfloat("f", 1.5) == 1.5
    assert r.append("t", "abc") == 3 and s.getrange("t", 1, 2) == "bc" and r.strlen("t") == 3
    assert s.setrange("t", 1, "X") == 3 and r.get("t") == "aXc" and r.substr("t", 0, 0) == "a"
    assert r.mset({"x": 1, "y": 2}) is True and s.mget("x", "none", "y") == ["1", None, "2"]
    assert r.msetnx({"p{t}": 1, "q{t}": 2}) is True and s.msetnx({"p{t}": 1, "z{t}": 2}) is False
    raises("CROSSSLOT", lambda: r.msetnx({"x": 1, "y": 2})) if redis.__version__ < "5" else None
    assert r.getdel("x") == "1" and s.exists("x", "y", "a") == 2 and r.touch("y", "a") == 2
    assert s.delete("y", "none") == 1 and r.unlink("t") == 1
    raises("not an integer", lambda: (r.set("text", "x"), s.incr("text")))


def lifetimes(r, s):
    assert r.set("k", "v", ex=100) and 90 < s.ttl("k") <= 100 and 90_000 < r.pttl("k") <= 100_000
    assert r.set("k", "w", keepttl=True) and s.ttl("k") > 90 and r.persist("k") is True and s.ttl("k") == -1
    assert r.ttl("none") == -2 and r.expire("k", 50) is True and s.expire("none", 50) is False
    assert r.expire("k", 10, nx=True) is False and r.expire("k", 500, gt=True) is True
    assert r.pexpire("k", 100_000) is True and s.expireat("k", int(time.time()) + 100) is True
    assert r.getex("k", persist=True) == "w" and s.ttl("k") == -1 and r.getex("k", px=100_000) == "w"
    assert s.setex("k", 100, "v") is True and r.psetex("k", 100_000, "v") is True and s.setnx("k", "v") is False
    assert abs(r.execute_command("EXPIRETIME", "k") - time.time() - 100) < 10
    assert r.execute_command("TYPE", "k") == s.type("k") == "string"
    assert [r.object("encoding", key) for key in ("k", "a")] == ["embstr", "int"] and r.object("refcount", "k") == 1
    assert r.set("soon", 1, px=20)
    while s.exists("soon"):
        pass
    assert r.get("soon") is None


def pipelines(r):
    with r.pipeline() as pipe:
        assert pipe.set("a{t}", 1).incr("a{t}").get("a{t}").ttl("a{t}").time().execute()[:4] == [True, 2, "2", -1]
    with r.pipeline(transaction=False) as pipe:
        replies = pipe.set("a", 1).incr("b").get("none").mget("a", "b").dbsize().delete("a", "b").execute()
        assert replies[:4] == [True, 1, None, ["1", "1"]] and replies[5] == 2
    with r.pipeline() as pipe:
        raises("same slot", lambda: pipe.set("a", 1).set("b", 1).execute())
        assert r.mget("a", "b") == [None, None]
    with r.pipeline() as pipe:
        done, failed = pipe.set("a{t}", "x").incr("a{t}").execute(raise_on_error=False)
        assert done is True and isinstance(failed, redis.ResponseError)
    with r.pipeline(transaction=False) as pipe:
        for key in range(500):
            pipe.set(f"many{key}", key)
            pipe.get(f"many{key}")
        assert pipe.execute() == [reply for key in range(500) for reply in (True, str(key))]


def keyspace(r, s):
    r.flushall()
    for key in range(100):
        r.set(f"key{key}", key)
    names = sorted(f"key{key}" for key in range(100))
    assert r.dbsize() == s.dbsize() == 100 and sorted(r.keys()) == sorted(s.scan_iter(count=7)) == names
    assert sorted(r.scan_iter(match="key1*")) == sorted(s.keys("key1*")) and r.randomkey() in names
    assert r.rename("key1", "key1") is True and s.copy("key1{key1}", "key1") is False
    raises("same slot", lambda: r.rename("key1", "key2"))
    raises("no such key", lambda: r.rename("none", "none"))
    assert s.flushdb() is True and r.dbsize() == 0


def about_the_server(r):
    info = r.info()
    assert info["redis_mode"] == "cluster" and info["loading"] == 0 and info["cluster_enabled"] == 1, info
    assert r.info("paxos")["groups"] == 16 and r.info("replication")["role"] == "master"
    assert r.set("a", 1) and r.info("keyspace")["db0"]["keys"] == 1 and "cmdstat_set" in r.info("commandstats")
    assert r.config_get("maxmemory") == {"maxmemory": "0"} and r.config_get("save") == {"save": ""}
    assert r.config_set("maxclients", 10000) is True and r.config_resetstat() is True
    raises("Unknown option", lambda: r.config_set("nonsense", 1))
    seconds, microseconds = r.time()
    assert abs(seconds - time.time()) < 60 and 0 <= microseconds < 1_000_000
    assert r.command_count() == len(r.command()) > 60 and r.command()["mget"]["arity"] == -2
    assert r.command_getkeys("MSET", "a", 1, "b", 2) == ["a", "b"]
    assert r.ping() is True and r.echo("hello") == "hello" and r.wait(1, 100) == 1
    raises("not allowed in cluster mode", lambda: r.select(1))
    raises("unknown command 'NONSENSE'", lambda: r.execute_command("NONSENSE", 1))
    nodes = r.cluster("nodes")
    assert sorted(int(address.rsplit(":", 1)[1]) for address in nodes) == sorted(PORTS) and r.cluster("info")["cluster_state"] == "ok"
    assert sum("myself" in node["flags"] for node in nodes.values()) == 1


def about_the_connection():
    r = connect(1, single_connection_client=True, client_name="first")
    assert r.client_getname() == "first" and r.client_setname("second") is True and r.client_getname() == "second"
    me = r.client_info()
    assert me["id"] == r.client_id() and me["name"] == "second" and me["db"] == 0, me
    assert "second" in [client["name"] for client in r.client_list()]
    assert [client["id"] for client in r.client_list(client_id=[str(r.client_id())])] == [str(r.client_id())]
    assert r.client_no_evict("ON") in (True, "OK") if hasattr(r, "client_no_evict") else True
    victim = connect(1, single_connection_client=True, retry_on_error=[])
    assert r.client_kill_filter(_id=victim.client_id()) == 1 and r.ping()
    assert r.execute_command("RESET") in ("RESET", True) and r.ping()


def cluster_client():
    c = RedisCluster(host="127.0.0.1", port=PORTS[2], decode_responses=True)
    assert sorted(node.port for node in c.get_nodes()) == sorted(PORTS)
    for key in range(300):
        assert c.set(f"key{key}", key) is True
    assert [c.get(f"key{key}") for key in range(300)] == [str(key) for key in range(300)]
    assert c.mget_nonatomic(*[f"key{key}" for key in range(50)]) == [str(key) for key in range(50)]
    assert c.mset_nonatomic({"x": 1, "y": 2}) and c.delete("x", "y", "none") == 2 and c.exists("key1", "key2", "x") == 2
    with c.pipeline() as pipe:
        for key in range(100):
            pipe.incr(f"count{key}").get(f"count{key}")
        assert pipe.execute() == [1, "1"] * 100
    assert c.cluster_keyslot("a") == 15495 and c.cluster_countkeysinslot(15495) == 1
    assert c.cluster_get_keys_in_slot(15495, 10) == ["a"]
    assert c.cluster_info()["cluster_state"] == "ok" and c.ping(target_nodes=RedisCluster.ALL_NODES) is True
    assert set(c.scan_iter(match="count*")) == {f"count{key}" for key in range(100)}
    assert c.expire("key1", 100) is True and c.ttl("key1") > 90 and c.getdel("key2") == "2"
    reader = RedisCluster(host="127.0.0.1", port=PORTS[0], decode_responses=True, read_from_replicas=True)
    assert [reader.get("key3") for _ in range(6)] == ["3"] * 6 and c.flushall() is True


def main():
    r, s = connect(0), connect(1)
    strings(r, s)
    lifetimes(r, s)
    pipelines(r)
    keyspace(r, s)
    about_the_server(r)
    about_the_connection()
    cluster_client()
    print("all replies understood")


main()
