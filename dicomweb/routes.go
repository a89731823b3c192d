package dicomweb

import (
	"math"
	"net/http"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// Role is what somebody may do. Somebody may have several; none takes another one in.
type Role string

// The roles. A route names the one that it needs.
const (
	RoleStore Role = "store" // put objects in
	RoleRead  Role = "read"  // find and get them
	RoleAdmin Role = "admin" // delete them

	anybody Role = ""    // without showing who it is
	known   Role = "any" // whoever has a role
)

// route is one line of the table that makes gin's routes, says who may use them, and is told as the OpenAPI document and as WADL.
type route struct {
	method  string // GET brings HEAD with it
	path    string // as gin writes it
	role    Role
	summary string
	query   []parameter // of query and header; those of the path are known by their names
	in      []string    // media types of the body
	out     []string    // media types of the answer
	also    []int       // statuses beside 200 that have such an answer; every other one is a JSON object with the sentence "error"
	handle  gin.HandlerFunc
}

// parameter is a parameter of a query, or of a header where In says so.
type parameter struct {
	name, in, about string
	schema          map[string]any // nil is a string
	required        bool
}

// The paths of resources.
const (
	studiesPath  = Root + "/studies"
	studyPath    = studiesPath + "/:study"
	seriesPath   = studyPath + "/series/:series"
	instancePath = seriesPath + "/instances/:instance"
)

// Media types that several routes share.
var (
	asJSON         = []string{"application/json"}
	asSearch       = []string{mediaJSON, `multipart/related; type="application/dicom+xml"`}
	asModels       = []string{mediaJSON, mediaXML}
	asInstance     = []string{`multipart/related; type="application/dicom"`, "application/dicom"}
	asCapabilities = []string{"application/vnd.sun.wadl+xml", "application/json"}
	asText         = []string{"text/plain"}
)

// What several routes take.
var (
	storeStatuses = []int{http.StatusAccepted, http.StatusConflict, http.StatusServiceUnavailable, http.StatusInsufficientStorage}
	searchQuery   = []parameter{
		{name: "limit", in: "query", about: "At most so many results; the service has a limit of its own.", schema: map[string]any{"type": "integer", "minimum": 1, "maximum": math.MaxInt64}},
		{name: "offset", in: "query", about: "Results to leave out first.", schema: map[string]any{"type": "integer", "minimum": 0, "maximum": maxOffset}},
		{name: "fuzzymatching", in: "query", about: "true: person names match fuzzily."},
		{name: "includefield", in: "query", about: "Keyword or tag of an attribute to return, or all.", schema: map[string]any{"type": "string"}},
		{name: "orderby", in: "query", about: "Attributes to sort by, with commas between, a minus before one for descending.", schema: map[string]any{"type": "string",
			"enum": []string{"", "StudyDate", "-StudyDate", "PatientName,-StudyDate"}}},
		{name: "PatientID", in: "query", about: "As an example of a key: every attribute of the level may be named by keyword or tag.", schema: map[string]any{"type": "string"}},
	}
)

// table lists every route.
func (s *server) table() []route {
	t := []route{
		{"GET", "/healthz", anybody, "The process answers", nil, nil, asJSON, nil, s.health},
		{"GET", "/readyz", anybody, "What the service needs is there", nil, nil, asJSON, []int{http.StatusServiceUnavailable}, s.ready},
		{"OPTIONS", Root, known, "What the service can do (PS3.18 section 8.9)", nil, nil, asCapabilities, nil, s.capabilities},
		{"GET", Root + "/openapi.json", known, "This document", nil, nil, asJSON, nil, s.openapi},
		{"GET", "/metrics", known, "Metrics for Prometheus", nil, nil, asText, nil, s.exposition},

		{"POST", studiesPath, RoleStore, "Store instances (STOW-RS)", nil, asInstance, asModels, storeStatuses, s.stow},
		{"POST", studyPath, RoleStore, "Store instances of one study (STOW-RS)", nil, asInstance, asModels, storeStatuses, s.stow},

		{"GET", "/wado", RoleRead, "Retrieve an instance (WADO-URI)", uriQuery, nil, append([]string{mediaDICOM}, pictures...), nil, s.wadoURI},
	}
	t = append(t, s.retrieveRoutes()...)
	for _, l := range []struct {
		path, what string
		level      pipeline.Level
	}{
		{studiesPath, "studies", pipeline.StudyLevel}, {Root + "/series", "series", pipeline.SeriesLevel}, {Root + "/instances", "instances", pipeline.InstanceLevel},
		{studyPath + "/series", "series of a study", pipeline.SeriesLevel}, {studyPath + "/instances", "instances of a study", pipeline.InstanceLevel},
		{seriesPath + "/instances", "instances of a series", pipeline.InstanceLevel},
	} {
		t = append(t,
			route{"GET", l.path, RoleRead, "Search for " + l.what + " (QIDO-RS)", searchQuery, nil, asSearch, nil, s.search(l.level)},
			route{"GET", l.path + "/count", RoleRead, "Count " + l.what + " that match", searchQuery, nil, asJSON, nil, s.count(l.level)})
	}
	if s.Config.Delete && s.Deleter != nil {
		t = append(t,
			route{"DELETE", studyPath, RoleAdmin, "Delete a study, with our readings of it", nil, nil, nil, nil, s.remove},
			route{"DELETE", seriesPath, RoleAdmin, "Delete a series", nil, nil, nil, nil, s.remove},
			route{"DELETE", instancePath, RoleAdmin, "Delete an instance", nil, nil, nil, nil, s.remove})
	}
	if s.Readings != nil {
		t = append(t,
			route{"GET", studyPath + "/reading", RoleRead, "How far a study has come, and its latest record", nil, nil, asJSON, nil, s.reading},
			route{"GET", studyPath + "/reading/image", RoleRead, "The picture that the model saw", nil, nil, []string{"image/png"}, nil, s.readingImage})
	}
	return append(t, s.chatRoutes()...)
}

// register makes gin's routes from the table.
func (s *server) register(e *gin.Engine) {
	for _, r := range s.table() {
		methods := []string{r.method}
		if r.method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
		for _, m := range methods {
			e.Handle(m, r.path, s.admitTo(r.role), r.handle)
		}
	}
}
