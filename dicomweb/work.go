package dicomweb

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// Work is what is not done: studies that are to be read, documents that are to be delivered.
type Work interface {
	// Tasks lists the tasks of up to most studies behind a UID; next is what to go on behind, empty at the end.
	Tasks(ctx context.Context, after string, most int) (tasks []pipeline.Task, next string, err error)
	// StudyTasks lists those of a study; pipeline.ErrNotFound if nothing of it is here.
	StudyTasks(ctx context.Context, studyUID string) ([]pipeline.Task, error)
	// Deliveries lists the deliveries of a study, those that are done too; errors as StudyTasks'.
	Deliveries(ctx context.Context, studyUID string) ([]pipeline.Task, error)
	// DestinationStates tells how each destination answers.
	DestinationStates(ctx context.Context) []pipeline.DestinationState
	// Retry takes up what was given up, with a destination its delivery there. by is who wants it, empty where nobody is known. pipeline.ErrConflict where there is
	// no such thing, pipeline.ErrNotFound where nobody knows the study or the destination.
	Retry(ctx context.Context, studyUID, destination, by string) error
	// Drop gives up what is not done; by and errors are Retry's.
	Drop(ctx context.Context, studyUID, destination, by string) error
}

// page reads the parameters after and limit.
func page(c *gin.Context) (after string, most int, err error) {
	most = maxLives
	if q, given := c.GetQuery("limit"); given {
		n, err := strconv.Atoi(q)
		if err != nil || n < 1 || n > maxLives {
			return "", 0, fmt.Errorf("%w: limit is not a number from 1 to %d", pipeline.ErrInvalid, maxLives)
		}
		most = n
	}
	after, given := c.GetQuery("after")
	if given && !pipeline.ValidUID(after) {
		return "", 0, fmt.Errorf("%w: after is not a UID", pipeline.ErrInvalid)
	}
	return after, most, nil
}

// jobs answers GET jobs: what is not done, page by page.
func (s *server) jobs(c *gin.Context) error { return s.undone(c, "jobs", gin.H{}) }

// deliveries answers GET deliveries: those of them that are deliveries, and how the destinations answer.
func (s *server) deliveries(c *gin.Context) error {
	return s.undone(c, "deliveries", gin.H{"destinations": append([]pipeline.DestinationState{}, s.Work.DestinationStates(c.Request.Context())...)})
}

// undone adds a page of what is not done to an answer, under a key.
func (s *server) undone(c *gin.Context, key string, answer gin.H) error {
	after, most, err := page(c)
	if err != nil {
		return err
	}
	dead := c.Query("dead")
	if dead != "" && dead != "true" && dead != "false" {
		return fmt.Errorf("%w: dead is neither true nor false", pipeline.ErrInvalid)
	}
	tasks, next, err := s.tasksTo(c, after, most)
	if err != nil {
		return err
	}
	answer[key] = append([]pipeline.Task{}, slices.DeleteFunc(tasks, func(t pipeline.Task) bool {
		return key == "deliveries" && t.Destination == "" || dead != "" && t.Dead != (dead == "true")
	})...)
	if next != "" {
		answer["next"] = next
	}
	c.JSON(http.StatusOK, answer)
	return nil
}

// tasksTo is a page of what is not done: of the destination that the query names, or all. One that the configuration does not name is known while something is
// on its way there.
func (s *server) tasksTo(c *gin.Context, after string, most int) ([]pipeline.Task, string, error) {
	to, given := c.GetQuery("destination")
	if !given || to == "" {
		return s.Work.Tasks(c.Request.Context(), after, most)
	}
	var names []string
	for _, d := range s.Work.DestinationStates(c.Request.Context()) {
		names = append(names, d.Name)
	}
	for first := after == ""; ; {
		tasks, next, err := s.Work.Tasks(c.Request.Context(), after, most)
		tasks = slices.DeleteFunc(tasks, func(t pipeline.Task) bool { return t.Destination != to })
		switch {
		case err != nil || len(tasks) > 0 || slices.Contains(names, to):
			return tasks, next, err
		case next == "" && first:
			return nil, "", pipeline.NoDestination(to, names)
		case next == "":
			return nil, "", nil
		}
		after = next
	}
}

// studyTasks lists tasks of a study under a key.
func (s *server) studyTasks(key string, list func(ctx context.Context, study string) ([]pipeline.Task, error)) handler {
	return ofStudy(func(c *gin.Context, study string) error {
		tasks, err := list(c.Request.Context(), study)
		if err != nil {
			return err
		}
		c.JSON(http.StatusOK, gin.H{key: append([]pipeline.Task{}, tasks...)})
		return nil
	})
}

// taskChange answers POST {study}/jobs/retry and its like. named: a destination has to be.
func (s *server) taskChange(named bool, change func(ctx context.Context, study, destination, by string) error) handler {
	return ofStudy(func(c *gin.Context, study string) error {
		to := c.Query("destination")
		if named && to == "" {
			return fmt.Errorf("%w: no destination is named", pipeline.ErrInvalid)
		}
		// Who asked may go away in the middle; what has begun is finished.
		if err := change(context.WithoutCancel(c.Request.Context()), study, to, c.GetString(principalKey)); err != nil {
			return err
		}
		c.JSON(http.StatusAccepted, gin.H{"study_instance_uid": study})
		return nil
	})
}

// ofStudy hands a handler the study that the path names.
func ofStudy(handle func(c *gin.Context, study string) error) handler {
	return func(c *gin.Context) error {
		study, _, _, err := pathUIDs(c)
		if err != nil {
			return err
		}
		return handle(c, study)
	}
}
