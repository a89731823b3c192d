package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestChartKnowsTheService: the metrics that the chart's dashboard and its ScaledObject ask for are those of a running service, and the streams whose
// length KEDA takes are named as the service names them.
func TestChartKnowsTheService(t *testing.T) {
	built(t)
	port := freePort(t)
	redisServer(t, port)
	config := filepath.Join(t.TempDir(), "chatxray.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "line: {quiet: 1s}\njobs: {redis: 'redis://127.0.0.1:%d/0', prefix: 'xray:'}\ndestinations: [{name: share, kind: folder, path: %q}]\n", port, t.TempDir()), 0o644); err != nil {
		t.Fatal(err)
	}
	s := serve(t, t.TempDir(), "--config", config)
	file, _ := phantom(t, "--rows", "256", "--columns", "256")
	chatxray(t, 0, "send", s.dicomweb(), file)
	eventually(t, 2*time.Minute, "the study to be read", func() error {
		if n := s.metric("chatxray_studies_read_total"); n != "1" {
			return fmt.Errorf("%s are read", n)
		}
		return nil
	})

	b, err := get(s.root + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	var known []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllSubmatch(b, -1) {
		name := string(m[1])
		if string(m[2]) == "histogram" {
			name += "_bucket"
		}
		known = append(known, name)
	}
	dashboard, err := os.ReadFile(filepath.Join(root, "charts/chatxray/dashboards/chatxray.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(dashboard) {
		t.Error("the dashboard is no JSON")
	}
	rendered, err := os.ReadFile(filepath.Join(root, "charts/test/testdata/locked.golden.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	asked := regexp.MustCompile(`\bchatxray_\w+`).FindAllString(string(dashboard), -1)
	asked = append(asked, regexp.MustCompile(`valueLocation: (\S+)`).FindStringSubmatch(string(rendered))[1])
	slices.Sort(asked)
	asked = slices.Compact(asked)
	if len(asked) < 15 {
		t.Errorf("only %v are asked for", asked)
	}
	for _, name := range asked {
		if !slices.Contains(known, name) {
			t.Errorf("the chart asks for %s, which /metrics does not have; it has %s", name, strings.Join(known, " "))
		}
	}
	for _, name := range known {
		if !slices.Contains(asked, name) {
			t.Errorf("the dashboard does not show %s", name)
		}
	}

	// The id of the archive is in the names; all else of them is the chart's.
	rendered, err = os.ReadFile(filepath.Join(root, "charts/test/testdata/keda.golden.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	id := regexp.MustCompile(`\{studies:[0-9a-f]+\}`)
	lane := regexp.MustCompile(`stream: "(.*:routine)"`).FindSubmatch(rendered)
	keys := redisKeys(t, port)
	if lane == nil || !slices.ContainsFunc(keys, func(k string) bool {
		return id.MatchString(k) && id.ReplaceAllString(k, "") == id.ReplaceAllString(string(lane[1]), "")
	}) {
		t.Errorf("the chart names the stream %s; Redis has %s", lane[1], strings.Join(keys, " "))
	}
}

// redisKeys lists all keys.
func redisKeys(t *testing.T, port int) (keys []string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "KEYS *\r\nQUIT\r\n")
	for lines := bufio.NewScanner(c); lines.Scan(); {
		if k := lines.Text(); !bytes.HasPrefix(lines.Bytes(), []byte("$")) && !bytes.HasPrefix(lines.Bytes(), []byte("*")) {
			keys = append(keys, k)
		}
	}
	return keys
}
