package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chatxray/config"
	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/jobs"
)

// servedParts are what of the service a role answers for.
var servedParts = map[config.Role]dicomweb.Part{config.RoleAll: dicomweb.Whole, config.RoleWeb: dicomweb.Face, config.RoleWorker: dicomweb.Behind}

// roleEngine loads the model where the role has one. Without it, eng has only the steps that need none.
func roleEngine(ctx context.Context, s streams, cfg config.Config) (eng *engine, err error) {
	if cfg.Role.Reads() {
		return startEngine(ctx, s, cfg, nil)
	}
	setUpCodecs(s.log)
	return &engine{steps: looking(0)}, nil
}

// roleDeps are what the server of a role is handed beside what every role has.
func roleDeps(cfg config.Config, eng *engine, arch *archive.Archive, deps dicomweb.Deps) dicomweb.Deps {
	deps.Part = servedParts[cfg.Role]
	if cfg.Role.Reads() {
		deps.Talking = talking(eng, arch)
		return deps
	}
	deps.Talking = dicomweb.Talking{Conversations: arch}
	if cfg.WorkerURL != "" {
		deps.Model = worker(cfg.WorkerURL)
	}
	return deps
}

// worker passes requests on, with the credentials of who asks, who has shown them here already.
func worker(address string) http.Handler {
	to, err := url.Parse(address)
	if err != nil { // config.Check has parsed it
		panic(err)
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			r.SetXForwarded()
		},
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, _ error) {
			if r.Context().Err() != nil {
				return // nobody listens
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Retry-After", "5")
			w.WriteHeader(http.StatusServiceUnavailable)
			const why = `"the worker that has the model does not answer; try again later"`
			if strings.HasPrefix(r.URL.Path, "/v1/") { // the form of OpenAI's interface
				fmt.Fprintf(w, `{"error":{"message":%s,"type":"server_error","code":"worker_unavailable","param":null}}`+"\n", why)
				return
			}
			fmt.Fprintf(w, `{"error":%s}`+"\n", why)
		},
	}
}

// membership makes a process that reads known to the others that share its Redis, and keeps it from reading while one reads with another
// bundle under the same name and version: both would read every study. Another version of a bundle is another bundle.
type membership struct {
	claims *jobs.Client
	me     jobs.Member
	lease  time.Duration
	joined atomic.Bool
	other  atomic.Pointer[jobs.Member]
}

func (m *membership) Check(context.Context) error {
	if o := m.other.Load(); o != nil {
		return fmt.Errorf("worker %s reads with another bundle that is called %s %s too (digest %.12s, here %.12s): give one of them another version", o.Worker, o.Model, o.Version, o.Digest, m.me.Digest)
	}
	return nil
}

// keep joins and stays until ctx ends; free is closed when the process may read.
func (m *membership) keep(ctx context.Context, s streams, free chan<- struct{}) {
	defer func() {
		leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = m.claims.Leave(leaving) // else it ends with its lease
	}()
	for {
		other, err := m.claims.Join(ctx, m.me, m.joined.Load())
		if err == nil {
			if before := m.other.Swap(other); other != nil && before == nil {
				s.log.Error().Bool("reads", m.joined.Load()).Err(m.Check(ctx)).Msg("two bundles have one name and one version; what has not begun to read waits until the other has stopped")
			} else if other == nil && before != nil {
				s.log.Info().Msg("the worker with another bundle of the same name has stopped")
			}
			if other == nil && !m.joined.Swap(true) {
				close(free)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(m.lease/3, 100*time.Millisecond)):
		}
	}
}

// newMembership is that of a process with this model.
func newMembership(claims *jobs.Client, cfg config.Config, ref pipeline.ModelRef) *membership {
	return &membership{claims: claims, lease: cfg.Jobs.Lease, me: jobs.Member{Model: ref.Name, Version: ref.Version, Digest: ref.Digest.String()}}
}

// run has the line work until ctx ends, and take what is to be done until taking ends. A process that reads waits until it may.
func (m *membership) run(ctx, taking context.Context, s streams, line *pipeline.Line) error {
	if m == nil {
		return line.Run(ctx, taking)
	}
	keeping, leave := context.WithCancel(context.WithoutCancel(ctx))
	free, left := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		m.keep(keeping, s, free)
	}()
	defer func() {
		leave()
		<-left
	}()
	select {
	case <-ctx.Done():
		return nil
	case <-free:
	}
	return line.Run(ctx, taking)
}

// countWorkers shows how many processes read.
func countWorkers(r *prometheus.Registry, claims *jobs.Client) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "chatxray", Name: "workers", Help: "Processes that read and deliver, as Redis knows them; -1 where it does not answer."},
		func() float64 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			all, err := claims.Members(ctx)
			if err != nil {
				return -1
			}
			return float64(len(all))
		}))
}
