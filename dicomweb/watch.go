package dicomweb

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strconv"
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

func (s *server) exposition(c *gin.Context) error {
	s.metrics.handler.ServeHTTP(c.Writer, c.Request)
	return nil
}

// access logs and counts a request: route, UIDs of the path, status, bytes, seconds. Query strings hold patient data and stay out.
func (s *server) access(c *gin.Context) {
	start := time.Now()
	defer func() {
		took := time.Since(start)
		route := c.FullPath()
		switch {
		case route != "":
		case c.GetBool(ofViewer):
			route = "viewer"
		default:
			route = "none"
		}
		status := c.Writer.Status()
		s.metrics.requests.WithLabelValues(route, knownMethod(c.Request.Method), strconv.Itoa(status)).Inc()
		s.metrics.seconds.WithLabelValues(route).Observe(took.Seconds())
		if route == "/healthz" || route == "/readyz" || route == "/metrics" || route == "viewer" {
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
		if by := c.GetString(principalKey); by != "" {
			e = e.Str("by", by)
		}
		if len(c.Errors) > 0 {
			e = e.Str("error", told(c))
		}
		e.Str("method", knownMethod(c.Request.Method)).Str("route", route).Int("status", status).Str("client", c.ClientIP()).
			Int64("bytes_in", received(c)).Int64("bytes_out", int64(max(c.Writer.Size(), 0))+c.GetInt64(bytesOut)).Dur("took", took).Msg("request")
	}()
	c.Next()
}

// told is the last error of a request as the log has it. One of a request with a query may name what the query says: of that, only the
// sentinel is told.
func told(c *gin.Context) string {
	err := c.Errors.Last().Err
	switch {
	case statusOf(err) == http.StatusInternalServerError:
		return err.Error()
	case c.Request.URL.RawQuery == "": // what a client has sent is in quotes, and for the client only
		return quoted.ReplaceAllString(err.Error(), "(left out)")
	}
	for _, w := range wire {
		if errors.Is(err, w.err) {
			return w.err.Error()
		}
	}
	return "failed"
}

// quoted matches what %q writes.
var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

func knownMethod(m string) string {
	if slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}, m) {
		return m
	}
	return "other"
}

// health says that the process answers.
func (s *server) health(c *gin.Context) error {
	c.JSON(http.StatusOK, gin.H{"status": "ok"})
	return nil
}

// checkPatience bounds each check of readiness.
const checkPatience = 5 * time.Second

// ready asks every check, all at once: 200 where all pass, else 503 with the names of those that do not.
func (s *server) ready(c *gin.Context) error {
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
	return nil
}
