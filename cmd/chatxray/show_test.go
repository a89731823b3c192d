package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"chatxray/dicomweb"
	"chatxray/pipeline"
)

// TestWrongRoot: where the URL is not the root of a service, a command says so and what to do, at once, and does not say that it did something.
func TestWrongRoot(t *testing.T) {
	root, _ := undoneService(t, nil)
	answering := func(status int, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	service, wrong := strings.TrimSuffix(root, dicomweb.Root), "ends in /dicom-web"
	for what, url := range map[string]string{
		"another path of it":        service + "/wrong",
		"above it":                  service,
		"below its root":            root + "/x",
		"a server of others":        answering(404, "404 page not found"),
		"one that answers as ours":  answering(404, `{"error":"no such page"}`),
		"pages at every path":       answering(200, "<html>"),
		"an object for every path":  answering(200, "{}"),
		"another object everywhere": answering(200, `{"study_instance_uid":"1.2","state":""}`),
	} {
		t.Run(what, func(t *testing.T) {
			says(t, exitServer, []string{wrong, "!here yet"}, "show", "--wait", "1h", url, "1.2.1")
			for _, command := range [][]string{{"release"}, {"studies", "force"}, {"jobs", "retry"}, {"jobs", "drop"}} {
				says(t, exitServer, []string{wrong, "!released", "!taken up", "!given up", "!read as it is"}, append(command, url, "1.2.1")...)
			}
			says(t, exitServer, []string{wrong, "!taken up"}, "deliveries", "retry", "--destination", "pacs", url, "1.2.1")
		})
	}
}

// TestShowWaits: of a study that has not come yet it is told that it is waited for.
func TestShowWaits(t *testing.T) {
	root, _ := undoneService(t, []map[string]*pipeline.Delivery{{"pacs": {}}})
	says(t, 0, []string{"1.2.1", "!here yet"}, "show", "--wait", "1h", root, "1.2.1")
	says(t, exitServer, []string{"study 7.7: nothing of it is here yet", "404", "!ends in"}, "show", "--wait", "1ms", root, "7.7")
}
