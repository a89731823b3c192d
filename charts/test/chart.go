// Package charts checks the Helm chart with the software of those who read what it renders: Helm, the API types of Kubernetes and of the
// Prometheus Operator, the policy of Pod Security, the definitions that KEDA ships.
package charts

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

const (
	release   = "xray"
	namespace = "radiology"
	chartDir  = "../chatxray"
)

var helmPath = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("bash", "../../scripts/tool.sh", "helm").Output()
	return strings.TrimSpace(string(out)), err
})

func helm(args ...string) ([]byte, error) {
	path, err := helmPath()
	if err != nil {
		return nil, err
	}
	var out, errw bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+os.TempDir(), "HELM_CONFIG_HOME="+os.TempDir(), "HELM_DATA_HOME="+os.TempDir())
	cmd.Stdout, cmd.Stderr = &out, &errw
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("helm %s: %w\n%s%s", args[0], err, out.String(), errw.String())
	}
	return out.Bytes(), nil
}

// render is what helm install would send with a values file.
func render(chart, values string, more ...string) ([]byte, error) {
	return helm(append([]string{"template", release, chart, "--namespace", namespace, "--kube-version", "1.33.0", "--values", values}, more...)...)
}

// valueFiles are those of the chart's ci folder, which helm's own chart-testing reads too.
func valueFiles() []string {
	files, _ := filepath.Glob(filepath.Join(chartDir, "ci", "*.yaml"))
	return files
}

// verify lints and renders a chart and looks at every manifest. It returns what was rendered, and all that is wrong.
func verify(chart, values string) ([]byte, error) {
	if _, err := helm("lint", "--strict", "--values", values, chart); err != nil {
		return nil, err
	}
	rendered, err := render(chart, values)
	if err != nil {
		return nil, err
	}
	all, err := decode(rendered)
	return rendered, errors.Join(err, all.restricted(), all.fit())
}
