package dicomweb

import (
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
	asModel        = []string{mediaJSON}
	asModels       = []string{mediaJSON, mediaXML}
	asDICOM        = []string{`multipart/related; type="application/dicom"`}
	asInstance     = []string{`multipart/related; type="application/dicom"`, "application/dicom"}
	asCapabilities = []string{"application/vnd.sun.wadl+xml", "application/json"}
	asText         = []string{"text/plain"}
)

// What several routes take.
var (
	storeStatuses = []int{http.StatusAccepted, http.StatusConflict, http.StatusServiceUnavailable, http.StatusInsufficientStorage}
	searchQuery   = []parameter{
		{"limit", "query", "At most so many results; the service has a limit of its own.", map[string]any{"type": "integer", "minimum": 1}},
		{"offset", "query", "Results to leave out first.", map[string]any{"type": "integer", "minimum": 0}},
		{"fuzzymatching", "query", "true asks for fuzzy matching of person names.", map[string]any{"type": "string"}},
		{"includefield", "query", "Keyword or tag of an attribute to return, or all.", map[string]any{"type": "string"}},
		{"PatientID", "query", "As an example of a key: every attribute of the level may be named by keyword or tag.", map[string]any{"type": "string"}},
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

		{"GET", studiesPath, RoleRead, "Search for studies (QIDO-RS)", searchQuery, nil, asModel, nil, s.search(pipeline.StudyLevel)},
		{"GET", Root + "/series", RoleRead, "Search for series (QIDO-RS)", searchQuery, nil, asModel, nil, s.search(pipeline.SeriesLevel)},
		{"GET", Root + "/instances", RoleRead, "Search for instances (QIDO-RS)", searchQuery, nil, asModel, nil, s.search(pipeline.InstanceLevel)},
		{"GET", studyPath + "/series", RoleRead, "Search for series of a study (QIDO-RS)", searchQuery, nil, asModel, nil, s.search(pipeline.SeriesLevel)},
		{"GET", studyPath + "/instances", RoleRead, "Search for instances of a study (QIDO-RS)", searchQuery, nil, asModel, nil, s.search(pipeline.InstanceLevel)},
		{"GET", seriesPath + "/instances", RoleRead, "Search for instances of a series (QIDO-RS)", searchQuery, nil, asModel, nil, s.search(pipeline.InstanceLevel)},

		{"GET", studyPath, RoleRead, "Retrieve a study (WADO-RS)", nil, nil, asDICOM, nil, s.retrieve},
		{"GET", seriesPath, RoleRead, "Retrieve a series (WADO-RS)", nil, nil, asDICOM, nil, s.retrieve},
		{"GET", instancePath, RoleRead, "Retrieve an instance (WADO-RS)", nil, nil, asInstance, nil, s.retrieve},
		{"GET", studyPath + "/metadata", RoleRead, "Retrieve the metadata of a study (WADO-RS)", nil, nil, asModel, nil, s.metadata},
		{"GET", seriesPath + "/metadata", RoleRead, "Retrieve the metadata of a series (WADO-RS)", nil, nil, asModel, nil, s.metadata},
		{"GET", instancePath + "/metadata", RoleRead, "Retrieve the metadata of an instance (WADO-RS)", nil, nil, asModel, nil, s.metadata},
		{"GET", instancePath + "/bulkdata/*path", RoleRead, "Retrieve a binary value that metadata name (WADO-RS)", nil, nil,
			[]string{"application/octet-stream", `multipart/related; type="application/octet-stream"`}, nil, s.bulkdata},
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
	return t
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
