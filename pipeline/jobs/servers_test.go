package jobs

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"chatxray/pipeline"
)

// places are the kinds of Redis that the suite runs over. The processes are started once and end with the tests.
var places = []struct {
	name  string
	start func(dir string) (place, error)
}{
	{"redis-server", startSingle}, {"TLS and ACL", startSecured}, {"Sentinel", startSentinel}, {"Sentinel with TLS", startSecuredSentinel},
	{"Cluster", startCluster}, {"Cluster with TLS", startSecuredCluster},
}

// place is a Redis: how it is reached, and by one who may do everything.
type place struct {
	url   string
	tls   TLS
	admin redis.UniversalClient
	nodes []*process // the first is the master of Sentinel
}

var started struct {
	sync.Mutex
	dir    string
	places map[string]place
	all    []*process
}

func TestMain(m *testing.M) {
	code := m.Run()
	started.Lock()
	for _, p := range started.places {
		p.admin.Close()
	}
	for _, p := range started.all {
		p.kill()
	}
	os.RemoveAll(started.dir)
	started.Unlock()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Println(err)
			code = 1
		}
	}
	os.Exit(code)
}

// at starts a place, or returns the one that runs.
func at(t *testing.T, name string, start func(dir string) (place, error)) place {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed (Debian package redis-server)")
	}
	started.Lock()
	defer started.Unlock()
	if p, ok := started.places[name]; ok {
		return p
	}
	if started.dir == "" {
		dir, err := os.MkdirTemp("", "chatxray-redis")
		if err != nil {
			t.Fatal(err)
		}
		started.dir, started.places = dir, map[string]place{}
	}
	others := len(started.all)
	p, err := start(filepath.Join(started.dir, strings.ReplaceAll(name, " ", "-")))
	if err != nil {
		for _, p := range started.all[others:] {
			p.kill()
			t.Log(p.log.String())
		}
		t.Fatalf("%s does not start: %v", name, err)
	}
	started.places[name] = p
	return p
}

// servers runs a test against the server inside the process and against each kind of real one, under a prefix of its own.
func servers(t *testing.T, f func(t *testing.T, cfg Config, admin func(*Client) redis.UniversalClient)) {
	cfg := Default()
	cfg.Lease, cfg.Prefix = time.Second, "chatxray:"+t.Name()+":"
	t.Run("embedded", func(t *testing.T) { f(t, cfg, func(c *Client) redis.UniversalClient { return c.redis }) })
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			place := at(t, p.name, p.start)
			cfg.Redis, cfg.TLS = pipeline.Secret(place.url), place.tls
			f(t, cfg, func(*Client) redis.UniversalClient { return place.admin })
		})
	}
}

// flush empties a Redis as FLUSHALL does.
func flush(t *testing.T, admin redis.UniversalClient) {
	t.Helper()
	all := &Client{redis: admin}
	if err := all.shards(t.Context(), func(ctx context.Context, r *redis.Client) error { return r.FlushAll(ctx).Err() }); err != nil {
		t.Fatal(err)
	}
}

// process is a redis-server.
type process struct {
	port int
	cmd  *exec.Cmd
	log  bytes.Buffer
	end  sync.Once
}

func (p *process) addr() string { return fmt.Sprintf("127.0.0.1:%d", p.port) }

func (p *process) kill() {
	p.end.Do(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
}

// launch starts a redis-server with lines of configuration. With certificates it speaks nothing but TLS, to other servers too, and wants one of its clients.
func launch(dir string, files TLS, lines ...string) (*process, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	p := &process{port: port}
	how := fmt.Sprintf("port %d", port)
	if files != (TLS{}) {
		how = fmt.Sprintf("port 0\ntls-port %d\ntls-cert-file %s\ntls-key-file %s\ntls-ca-cert-file %s\ntls-auth-clients yes\ntls-replication yes", port, files.Certificate, files.Key, files.CA)
	}
	sentinel := len(lines) > 0 && strings.HasPrefix(lines[0], "sentinel ")
	conf := how + "\nbind 127.0.0.1\ndir " + dir + "\n"
	if !sentinel {
		conf += "save \"\"\nappendonly no\nrepl-diskless-sync-delay 0\n"
	}
	file := filepath.Join(dir, fmt.Sprintf("%d.conf", port))
	if err := os.WriteFile(file, []byte(conf+strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return nil, err
	}
	args := []string{file}
	if sentinel {
		args = append(args, "--sentinel")
	}
	p.cmd = exec.Command("redis-server", args...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	started.all = append(started.all, p)
	return p, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// eventually tries until f has no error.
func eventually(f func(context.Context) error) (err error) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err = f(ctx)
		cancel()
		if err == nil {
			return nil
		}
	}
	return err
}

// root connects as one who may do everything.
func root(p *process, files TLS) (redis.UniversalClient, error) {
	c, err := trusting(files)
	return redis.NewClient(&redis.Options{Addr: p.addr(), Password: rootPassword(files), TLSConfig: c, MaintNotificationsConfig: nothingAnnounced}), err
}

// rootPassword is that of the user default, who needs none where there is no TLS.
func rootPassword(files TLS) string {
	if files == (TLS{}) {
		return ""
	}
	return "admin"
}

// rooted is the user default of a server.
func rooted(files TLS) string {
	if files == (TLS{}) {
		return "user default on nopass ~* &* +@all"
	}
	return "user default on >admin ~* &* +@all\nmasterauth admin"
}

// trusting is the TLS of a client; nil without files.
func trusting(files TLS) (*tls.Config, error) {
	if files == (TLS{}) {
		return nil, nil
	}
	c := &tls.Config{}
	return c, files.over(c, false)
}

func answers(c redis.UniversalClient) error {
	return eventually(func(ctx context.Context) error { return c.Ping(ctx).Err() })
}

func startSingle(dir string) (place, error) { return single(dir, "redis://", TLS{}) }

func startSecured(dir string) (place, error) {
	files, err := certificates(dir)
	if err != nil {
		return place{}, err
	}
	return single(dir, "rediss://worker:hush@", files)
}

func single(dir, scheme string, files TLS) (place, error) {
	p, err := launch(dir, files, rooted(files), user(""))
	if err != nil {
		return place{}, err
	}
	c, err := root(p, files)
	if err != nil {
		return place{}, err
	}
	return place{url: scheme + p.addr() + "/0", tls: files, admin: c, nodes: []*process{p}}, answers(c)
}

// acl is what a user of chatxray has to be allowed, as docs/operations.md says.
const acl = `~chatxray:* &chatxray:* +ping +get +set +setnx +del +pexpire +eval +evalsha +time +exists +hget +hset +hdel +hlen +zadd +zrem +zcard +zrange +zrangebyscore ` +
	`+xadd +xdel +xack +xlen +xrange +xpending +xclaim +xautoclaim +xreadgroup +xgroup|create +publish +subscribe +unsubscribe +scan +type`

// aclCluster is what a Cluster wants besides.
const aclCluster = ` +cluster|slots +cluster|shards +command`

func user(more string) string { return "user worker on >hush " + acl + more }

// aclSentinel is what our user of the Sentinels has to be allowed.
const aclSentinel = "&* +@connection +subscribe +sentinel|get-master-addr-by-name +sentinel|sentinels"

func startSentinel(dir string) (place, error) { return sentinel(dir, "redis://", TLS{}) }

func startSecuredSentinel(dir string) (place, error) {
	files, err := certificates(dir)
	if err != nil {
		return place{}, err
	}
	return sentinel(dir, "rediss://asker:where@", files, "sentinel auth-pass main admin", "sentinel sentinel-user default", "sentinel sentinel-pass admin",
		"user default on >admin ~* &* +@all", "user asker on >where "+aclSentinel)
}

func sentinel(dir, scheme string, files TLS, lines ...string) (place, error) {
	master, err := launch(dir, files, rooted(files), user(""))
	if err != nil {
		return place{}, err
	}
	replica, err := launch(dir, files, rooted(files), user(""), fmt.Sprintf("replicaof 127.0.0.1 %d", master.port))
	if err != nil {
		return place{}, err
	}
	a, err := root(master, files)
	if err != nil {
		return place{}, err
	}
	defer a.Close()
	b, err := root(replica, files)
	if err != nil {
		return place{}, err
	}
	defer b.Close()
	if err := answers(a); err != nil {
		return place{}, err
	}
	if err := eventually(func(ctx context.Context) error {
		s, err := b.Info(ctx, "replication").Result()
		if err == nil && !strings.Contains(s, "master_link_status:up") {
			err = fmt.Errorf("the replica does not follow: %s", s)
		}
		return err
	}); err != nil {
		return place{}, err
	}
	c, err := trusting(files)
	if err != nil {
		return place{}, err
	}
	var addrs []string
	for range 3 {
		s, err := launch(dir, files, append([]string{fmt.Sprintf("sentinel monitor main 127.0.0.1 %d 2", master.port), "sentinel down-after-milliseconds main 1000",
			"sentinel failover-timeout main 4000", "sentinel parallel-syncs main 1"}, lines...)...)
		if err != nil {
			return place{}, err
		}
		addrs = append(addrs, s.addr())
	}
	if err := eventually(func(ctx context.Context) error { // until they know each other and the replica
		for _, addr := range addrs {
			s := redis.NewSentinelClient(&redis.Options{Addr: addr, Password: rootPassword(files), TLSConfig: c, MaintNotificationsConfig: nothingAnnounced})
			known, err := s.Master(ctx, "main").Result()
			s.Close()
			if err != nil {
				return err
			}
			if known["num-slaves"] != "1" || known["num-other-sentinels"] != "2" {
				return fmt.Errorf("a Sentinel knows %s replicas and %s others", known["num-slaves"], known["num-other-sentinels"])
			}
		}
		return nil
	}); err != nil {
		return place{}, err
	}
	url := fmt.Sprintf("%s%s/0?master_name=main&addr=%s&addr=%s&username=worker&password=hush", scheme, addrs[0], addrs[1], addrs[2])
	return place{url: url, tls: files, nodes: []*process{master, replica}, admin: redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "main", SentinelAddrs: addrs,
		SentinelPassword: rootPassword(files), Password: rootPassword(files), TLSConfig: c})}, nil
}

func startCluster(dir string) (place, error) { return cluster(dir, "redis://", TLS{}) }

func startSecuredCluster(dir string) (place, error) {
	files, err := certificates(dir)
	if err != nil {
		return place{}, err
	}
	return cluster(dir, "rediss://", files, "--tls", "--cacert", files.CA, "--cert", files.Certificate, "--key", files.Key, "--pass", "admin", "--no-auth-warning")
}

func cluster(dir, scheme string, files TLS, cli ...string) (place, error) {
	p := place{tls: files}
	var addrs []string
	for i := range 3 {
		bus, err := freePort()
		if err != nil {
			return place{}, err
		}
		lines := []string{"cluster-enabled yes", fmt.Sprintf("cluster-port %d", bus), rooted(files), user(aclCluster)}
		if len(cli) > 0 {
			lines = append(lines, "tls-cluster yes")
		}
		node, err := launch(filepath.Join(dir, fmt.Sprint(i)), files, lines...)
		if err != nil {
			return place{}, err
		}
		c, err := root(node, files)
		if err == nil {
			err = answers(c)
		}
		c.Close()
		if err != nil {
			return place{}, err
		}
		p.nodes, addrs = append(p.nodes, node), append(addrs, node.addr())
	}
	if out, err := exec.Command("redis-cli", append(append(append(cli, "--cluster", "create"), addrs...), "--cluster-yes")...).CombinedOutput(); err != nil {
		return place{}, fmt.Errorf("redis-cli: %w\n%s", err, out)
	}
	c, err := trusting(files)
	if err != nil {
		return place{}, err
	}
	p.admin = redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, Password: rootPassword(files), TLSConfig: c, MaintNotificationsConfig: nothingAnnounced})
	p.url = scheme + "worker:hush@" + addrs[0] + "?addr=" + addrs[1]
	return p, eventually(func(ctx context.Context) error {
		for _, node := range p.nodes {
			c, err := root(node, files)
			if err != nil {
				return err
			}
			info, err := c.ClusterInfo(ctx).Result()
			c.Close()
			if err != nil || !strings.Contains(info, "cluster_state:ok") {
				return fmt.Errorf("%v %s", err, info)
			}
		}
		return nil
	})
}
