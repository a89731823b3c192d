package jobs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
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
	{"redis-server", startSingle}, {"TLS and ACL", startSecured}, {"Sentinel", startSentinel}, {"Cluster", startCluster},
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

// launch starts a redis-server with lines of configuration. With TLS it has no other port.
func launch(dir string, secured bool, lines ...string) (*process, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	p := &process{port: port}
	how := fmt.Sprintf("port %d", port)
	if secured {
		how = fmt.Sprintf("port 0\ntls-port %d", port)
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

func admin(p *process, o redis.Options) redis.UniversalClient {
	o.Addr, o.MaintNotificationsConfig = p.addr(), nothingAnnounced
	return redis.NewClient(&o)
}

func answers(c redis.UniversalClient) error {
	return eventually(func(ctx context.Context) error { return c.Ping(ctx).Err() })
}

func startSingle(dir string) (place, error) {
	p, err := launch(dir, false)
	if err != nil {
		return place{}, err
	}
	c := admin(p, redis.Options{})
	return place{url: "redis://" + p.addr() + "/0", admin: c, nodes: []*process{p}}, answers(c)
}

// acl is what a user of chatxray has to be allowed, as docs/operations.md says.
const acl = `~chatxray:* &chatxray:* +ping +get +set +setnx +del +pexpire +eval +evalsha +time +exists +hget +hset +hdel +hlen +zadd +zrem +zcard +zrange +zrangebyscore ` +
	`+xadd +xdel +xack +xlen +xrange +xpending +xclaim +xautoclaim +xreadgroup +xgroup|create +publish +subscribe +unsubscribe +scan +type`

// aclCluster is what a Cluster wants besides.
const aclCluster = ` +cluster|slots +cluster|shards +command`

func user(more string) string { return "user worker on >hush " + acl + more }

func startSecured(dir string) (place, error) {
	files, err := certificates(dir)
	if err != nil {
		return place{}, err
	}
	p, err := launch(dir, true, "tls-cert-file "+files.Certificate, "tls-key-file "+files.Key, "tls-ca-cert-file "+files.CA, "tls-auth-clients yes",
		"user default on >admin ~* &* +@all", user(""))
	if err != nil {
		return place{}, err
	}
	c := &tls.Config{}
	if err := files.over(c, false); err != nil {
		return place{}, err
	}
	a := admin(p, redis.Options{Password: "admin", TLSConfig: c})
	return place{url: "rediss://worker:hush@" + p.addr() + "/0", tls: files, admin: a, nodes: []*process{p}}, answers(a)
}

func startSentinel(dir string) (place, error) {
	master, err := launch(dir, false, "user default on nopass ~* &* +@all", user(""))
	if err != nil {
		return place{}, err
	}
	replica, err := launch(dir, false, "user default on nopass ~* &* +@all", user(""), fmt.Sprintf("replicaof 127.0.0.1 %d", master.port))
	if err != nil {
		return place{}, err
	}
	a, b := admin(master, redis.Options{}), admin(replica, redis.Options{})
	defer a.Close()
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
	var addrs []string
	for range 3 {
		s, err := launch(dir, false, fmt.Sprintf("sentinel monitor main 127.0.0.1 %d 2", master.port), "sentinel down-after-milliseconds main 1000",
			"sentinel failover-timeout main 4000", "sentinel parallel-syncs main 1")
		if err != nil {
			return place{}, err
		}
		addrs = append(addrs, s.addr())
	}
	if err := eventually(func(ctx context.Context) error { // until they know each other and the replica
		for _, addr := range addrs {
			s := redis.NewSentinelClient(&redis.Options{Addr: addr, MaintNotificationsConfig: nothingAnnounced})
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
	url := fmt.Sprintf("redis://%s/0?master_name=main&addr=%s&addr=%s&username=worker&password=hush", addrs[0], addrs[1], addrs[2])
	return place{url: url, nodes: []*process{master, replica}, admin: redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "main", SentinelAddrs: addrs})}, nil
}

func startCluster(dir string) (place, error) {
	var p place
	var addrs []string
	for i := range 3 {
		bus, err := freePort()
		if err != nil {
			return place{}, err
		}
		node, err := launch(filepath.Join(dir, fmt.Sprint(i)), false, "cluster-enabled yes", fmt.Sprintf("cluster-port %d", bus), "user default on nopass ~* &* +@all", user(aclCluster))
		if err != nil {
			return place{}, err
		}
		c := admin(node, redis.Options{})
		err = answers(c)
		c.Close()
		if err != nil {
			return place{}, err
		}
		p.nodes, addrs = append(p.nodes, node), append(addrs, node.addr())
	}
	if out, err := exec.Command("redis-cli", append(append([]string{"--cluster", "create"}, addrs...), "--cluster-yes")...).CombinedOutput(); err != nil {
		return place{}, fmt.Errorf("redis-cli: %w\n%s", err, out)
	}
	p.admin = redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, MaintNotificationsConfig: nothingAnnounced})
	p.url = "redis://worker:hush@" + addrs[0] + "?addr=" + addrs[1]
	return p, eventually(func(ctx context.Context) error {
		for _, node := range p.nodes {
			c := admin(node, redis.Options{})
			info, err := c.ClusterInfo(ctx).Result()
			c.Close()
			if err != nil || !strings.Contains(info, "cluster_state:ok") {
				return fmt.Errorf("%v %s", err, info)
			}
		}
		return nil
	})
}

// certificates makes a CA and a certificate of it for server and client.
func certificates(dir string) (files TLS, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return files, err
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return files, err
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return files, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return files, err
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "redis"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return files, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return files, err
	}
	files = TLS{CA: filepath.Join(dir, "ca.pem"), Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	for _, f := range []struct {
		path, kind string
		der        []byte
	}{{files.CA, "CERTIFICATE", caDER}, {files.Certificate, "CERTIFICATE", der}, {files.Key, "PRIVATE KEY", keyDER}} {
		if err := os.WriteFile(f.path, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der}), 0o600); err != nil {
			return files, err
		}
	}
	return files, nil
}
