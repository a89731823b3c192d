package jobs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"chatxray/pipeline"
)

// TLS is the section "jobs.tls" of the configuration file, for a URL with rediss://.
type TLS struct {
	CA          string `yaml:"ca"`          // PEM file of who has signed the servers' certificates; empty: whom this machine trusts
	Certificate string `yaml:"certificate"` // PEM file of this client, for servers that want one
	Key         string `yaml:"key"`
}

func (t TLS) check(secured bool) error {
	switch {
	case (t.Certificate == "") != (t.Key == ""):
		return errors.New("jobs.tls: certificate and key belong together")
	case t != TLS{} && !secured:
		return errors.New("jobs.tls: means nothing without a URL in jobs.redis that begins with rediss://")
	}
	return nil
}

// over reads the files into a configuration; host names are those that are dialled.
func (t TLS) over(c *tls.Config, several bool) error {
	if c == nil {
		return nil
	}
	c.MinVersion = tls.VersionTLS12
	if several {
		c.ServerName = "" // the library takes that of the first one for all
	}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return fmt.Errorf("jobs.tls.ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("jobs.tls.ca: %s holds no certificate", t.CA)
		}
	}
	if t.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
		if err != nil {
			return fmt.Errorf("jobs.tls.certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return nil
}

// errURL does not repeat the URL: it holds a password.
var errURL = errors.New("jobs.redis: not a Redis URL (redis://[user:password@]host:port/database; Sentinel: ?master_name=NAME&addr=host:port; Cluster: ?addr=host:port)")

// server is a way to a Redis, or to several that are one.
type server struct {
	single   *redis.Options
	cluster  *redis.ClusterOptions
	failover *redis.FailoverOptions
}

// parse reads the URL of a Redis. What its query names says which kind it is.
func (c Config) parse() (s server, err error) {
	u, err := url.Parse(c.Redis.Reveal())
	if err != nil {
		return s, errURL
	}
	switch q := u.Query(); {
	case q.Has("master_name"):
		s.failover, err = redis.ParseFailoverURL(c.Redis.Reveal())
	case q.Has("addr"):
		if s.cluster, err = redis.ParseClusterURL(c.Redis.Reveal()); err == nil {
			s.cluster.MaintNotificationsConfig = nothingAnnounced
		}
	default:
		if s.single, err = redis.ParseURL(c.Redis.Reveal()); err == nil {
			s.single.MaintNotificationsConfig = nothingAnnounced
		}
	}
	if err != nil {
		return s, errURL
	}
	return s, c.TLS.check(u.Scheme == "rediss")
}

// nothingAnnounced: servers that announce their maintenance are those of one vendor; others answer the question with an error.
var nothingAnnounced = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}

// connect makes the client; it connects when it is used. where names the servers.
func (s server) connect(t TLS) (c redis.UniversalClient, where string, err error) {
	switch {
	case s.failover != nil:
		err = t.over(s.failover.TLSConfig, true)
		return redis.NewFailoverClient(s.failover), "master " + s.failover.MasterName + " of the Sentinels " + strings.Join(s.failover.SentinelAddrs, ", "), err
	case s.cluster != nil:
		err = t.over(s.cluster.TLSConfig, true)
		return redis.NewClusterClient(s.cluster), "the Cluster " + strings.Join(s.cluster.Addrs, ", "), err
	}
	err = t.over(s.single.TLSConfig, false)
	return redis.NewClient(s.single), s.single.Addr, err
}

// LogTo sends what the Redis library has to say (another master, a node that is away) somewhere else than to standard error. For the whole process.
func LogTo(say func(string)) { redis.SetLogger(logger(say)) }

type logger func(string)

// Printf is what the library calls.
func (l logger) Printf(_ context.Context, format string, v ...any) { l(fmt.Sprintf(format, v...)) }

// layout counts the ways in which this package has laid out its keys.
const layout = "1"

func (c *Client) layoutKey() string { return c.cfg.Prefix + "layout" }

// settle makes sure that the prefix is ours: nothing of others is under it, and no newer version has laid out its keys otherwise.
func (c *Client) settle(ctx context.Context) error {
	switch had, err := c.redis.Get(ctx, c.layoutKey()).Result(); {
	case err == nil && had == layout:
		return nil
	case err == nil:
		return fmt.Errorf("%w: the keys under the prefix %q (jobs.prefix) are laid out by another version of chatxray (layout %.20q, this one knows %s): use the same version everywhere, or another prefix",
			pipeline.ErrConflict, c.cfg.Prefix, had, layout)
	case redis.HasErrorPrefix(err, "WRONGTYPE"):
		return c.foreign(c.layoutKey())
	case !errors.Is(err, redis.Nil):
		return err
	}
	if err := c.shards(ctx, c.survey); err != nil {
		return err
	}
	return c.redis.SetNX(ctx, c.layoutKey(), layout, 0).Err()
}

func (c *Client) foreign(key string) error {
	return fmt.Errorf("%w: something else uses the prefix %q in this Redis, its key %.100q is not of chatxray: choose another jobs.prefix; nothing was changed", pipeline.ErrConflict, c.cfg.Prefix, key)
}

// shards calls f for each server that holds keys.
func (c *Client) shards(ctx context.Context, f func(context.Context, *redis.Client) error) error {
	switch r := c.redis.(type) {
	case *redis.ClusterClient:
		return r.ForEachMaster(ctx, f)
	case *redis.Client:
		return f(ctx, r)
	}
	return fmt.Errorf("%w: a Redis of the kind %T", pipeline.ErrUnsupported, c.redis)
}

// survey looks for keys under the prefix that are not ours: of another name, or of another type than we have under it.
func (c *Client) survey(ctx context.Context, r *redis.Client) error {
	for cursor := uint64(0); ; {
		keys, next, err := r.Scan(ctx, cursor, c.cfg.Prefix+"*", 1000).Result()
		if err != nil {
			return err
		}
		for _, key := range keys {
			want := typeOf(strings.TrimPrefix(key, c.cfg.Prefix))
			got, err := r.Type(ctx, key).Result()
			if err != nil {
				return err
			}
			if got != want && got != "none" { // none: it has ended meanwhile
				return c.foreign(key)
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// typeOf is the type of a key of ours without its prefix; empty for one that is not.
func typeOf(name string) string {
	if strings.HasPrefix(name, "claim:") || name == "layout" {
		return "string"
	}
	_, part, ok := strings.Cut(name, "}:")
	if !ok || name[0] != '{' {
		return ""
	}
	if strings.HasPrefix(part, "lane:") {
		return "stream"
	}
	return map[string]string{"jobs": "hash", "later": "zset", "heads": "hash", "epoch": "string"}[part]
}
