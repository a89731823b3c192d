package jobs

import (
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatxray/pipeline"
)

// TestStreamsOfTheChart: the streams whose length KEDA takes for work, as the Helm chart names them, have an entry for each job that is due, also
// while it is being done, and none afterwards.
func TestStreamsOfTheChart(t *testing.T) {
	rendered, err := os.ReadFile("../../charts/test/testdata/keda.golden.yaml")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`stream: "(.*)(\{(studies:[0-9a-f]+)\}.*)"`).FindAllSubmatch(rendered, -1)
	if len(named) != len(pipeline.Lanes) {
		t.Fatalf("%d streams for %d lanes", len(named), len(pipeline.Lanes))
	}
	servers(t, func(t *testing.T, cfg Config, _ func(*Client) redis.UniversalClient) {
		c, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		q := c.Queue(string(named[0][3]))
		lengths := func(want int64) {
			t.Helper()
			for _, n := range named {
				key := cfg.Prefix + string(n[2]) // the chart has a prefix of its own
				if got, err := c.redis.XLen(t.Context(), key).Result(); err != nil || got != want {
					t.Errorf("%s has %d entries (%v), want %d", key, got, err, want)
				}
			}
		}
		lengths(0)
		for _, lane := range pipeline.Lanes {
			put(t, q, string(lane), lane, 0)
		}
		lengths(1)
		var taken []pipeline.Lease
		for range pipeline.Lanes {
			taken = append(taken, take(t, q))
		}
		lengths(1)
		for _, l := range taken {
			done(t, l, time.Time{})
		}
		lengths(0)
	})
}
