package dicomweb

import (
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"
)

// Part is what of the service a process answers for.
type Part int

// The parts. Where several processes are one service, faces take objects in and answer about them, and what needs the model is passed on to
// those behind them.
const (
	Whole  Part = iota
	Face        // everything; what needs the model is Deps.Model's
	Behind      // what needs the model, and how the process is
)

// needsModel tells whether a route is answered by the model.
func needsModel(path string) bool {
	return strings.HasPrefix(path, openAIRoot) || path == heatPath
}

const heatPath = studyPath + "/reading/heatmap"

// parted leaves of the routes those of the server's part.
func (s *server) parted(all []route) (out []route) {
	for _, r := range all {
		switch model := needsModel(r.path); {
		case s.Part == Face && model:
			r.handle = s.passOn
		case s.Part == Behind && !model && strings.HasPrefix(r.path, Root+"/"), s.Part == Behind && r.path == "/wado":
			continue
		}
		out = append(out, r)
	}
	return out
}

// passOn has another process answer.
func (s *server) passOn(c *gin.Context) error {
	if s.Model == nil {
		const why = "this process has no model and knows no worker that has; worker_url names one"
		body := any(gin.H{"error": why})
		if ofOpenAI(c.Request) {
			body = fault{kind: "server_error", code: "no_model", message: why}.body()
		}
		c.JSON(http.StatusServiceUnavailable, body)
		return nil
	}
	if c.Request.ContentLength != 0 {
		c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, maxChatBody)
	}
	s.Model.ServeHTTP(c.Writer, c.Request)
	return nil
}
