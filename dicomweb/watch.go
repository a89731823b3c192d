package dicomweb

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"chatxray/pipeline"
)

// metrics are about routes and results, never about a study.
type metrics struct {
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	instances *prometheus.CounterVec
	bytes     prometheus.Counter
	handler   http.Handler
}

func newMetrics(r *prometheus.Registry, s *server) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chatxray_http_requests_total",
			Help: "HTTP requests by route, method and status."}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "chatxray_http_request_seconds",
			Help: "Seconds from a request's header to the end of its answer.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 9)}, []string{"route"}),
		instances: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chatxray_stow_instances_total",
			Help: "Instances sent by STOW-RS: stored, duplicate or failed."}, []string{"result"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "chatxray_stow_bytes_total",
			Help: "Bytes of the instances that were stored."}),
		handler: promhttp.HandlerFor(r, promhttp.HandlerOpts{}),
	}
	uploads := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "chatxray_uploads_running",
		Help: "STOW-RS requests under way."}, func() float64 { return float64(len(s.uploads)) })
	r.MustRegister(m.requests, m.seconds, m.instances, m.bytes, uploads)
	return m
}

func (m *metrics) stored(parts []stored, size int64) {
	for _, p := range parts {
		result := "stored"
		switch {
		case p.err != nil:
			result = "failed"
		case p.duplicate:
			result = "duplicate"
		}
		m.instances.WithLabelValues(result).Inc()
	}
	m.bytes.Add(float64(size))
}

func (s *server) exposition(c *gin.Context) { s.metrics.handler.ServeHTTP(c.Writer, c.Request) }

// access logs and counts a request: route, UIDs of the path, status, bytes, seconds. Query strings hold patient data and stay out.
func (s *server) access(c *gin.Context) {
	start := time.Now()
	defer func() {
		took := time.Since(start)
		route := c.FullPath()
		if route == "" {
			route = "none"
		}
		status := c.Writer.Status()
		s.metrics.requests.WithLabelValues(route, knownMethod(c.Request.Method), strconv.Itoa(status)).Inc()
		s.metrics.seconds.WithLabelValues(route).Observe(took.Seconds())
		if route == "/healthz" || route == "/readyz" || route == "/metrics" {
			return
		}
		e := s.Log.Info()
		if status >= 500 {
			e = s.Log.Error()
		}
		for _, p := range c.Params {
			if pipeline.ValidUID(p.Value) {
				e = e.Str(p.Key, p.Value)
			}
		}
		if len(c.Errors) > 0 {
			e = e.Str("error", c.Errors.Last().Error())
		}
		e.Str("method", knownMethod(c.Request.Method)).Str("route", route).Int("status", status).Str("client", c.RemoteIP()).
			Int64("bytes_in", c.GetInt64(bytesIn)).Int64("bytes_out", int64(max(c.Writer.Size(), 0))+c.GetInt64(bytesOut)).Dur("took", took).Msg("request")
	}()
	c.Next()
}

func knownMethod(m string) string {
	if slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}, m) {
		return m
	}
	return "other"
}

// authenticate lets a request pass that shows one of the tokens.
func (s *server) authenticate(c *gin.Context) {
	if len(s.Tokens) == 0 {
		return
	}
	scheme, token, _ := strings.Cut(c.GetHeader("Authorization"), " ")
	got := sha256.Sum256([]byte(strings.TrimSpace(token)))
	ok := 0
	for _, t := range s.Tokens {
		want := sha256.Sum256([]byte(t.Reveal()))
		ok |= subtle.ConstantTimeCompare(got[:], want[:])
	}
	if !strings.EqualFold(scheme, "Bearer") || ok == 0 {
		s.refuse(c, fmt.Errorf("%w: show one of the configured tokens as Authorization: Bearer TOKEN", errUnauthorized))
	}
}

// health says that the process answers.
func (s *server) health(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"status": "ok"}) }

// checkPatience bounds each check of readiness.
const checkPatience = 5 * time.Second

// ready asks every check, all at once: 200 where all pass, else 503 with the names of those that do not.
func (s *server) ready(c *gin.Context) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), checkPatience)
	defer cancel()
	var mu sync.Mutex
	var work sync.WaitGroup
	status, checks := http.StatusOK, map[string]string{}
	for name, check := range s.Checks {
		work.Go(func() {
			err := check(ctx)
			mu.Lock()
			defer mu.Unlock()
			checks[name] = "ok"
			if err != nil {
				checks[name], status = err.Error(), http.StatusServiceUnavailable
			}
		})
	}
	work.Wait()
	c.JSON(status, gin.H{"checks": checks})
}
