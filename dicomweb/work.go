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
	// Retry takes up what was given up, with a destination its delivery there; pipeline.ErrConflict where there is no such thing.
	Retry(ctx context.Context, studyUID, destination string) error
	// Drop gives up what is not done; pipeline.ErrConflict where there is no such thing.
	Drop(ctx context.Context, studyUID, destination string) error
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
func (s *server) jobs(c *gin.Context) error {
	after, most, err := page(c)
	if err != nil {
		return err
	}
	dead := c.Query("dead")
	if dead != "" && dead != "true" && dead != "false" {
		return fmt.Errorf("%w: dead is neither true nor false", pipeline.ErrInvalid)
	}
	tasks, next, err := s.Work.Tasks(c.Request.Context(), after, most)
	if err != nil {
		return err
	}
	if dead != "" {
		tasks = slices.DeleteFunc(tasks, func(t pipeline.Task) bool { return t.Dead != (dead == "true") })
	}
	answer := gin.H{"jobs": append([]pipeline.Task{}, tasks...)}
	if next != "" {
		answer["next"] = next
	}
	c.JSON(http.StatusOK, answer)
	return nil
}

// studyJobs answers GET {study}/jobs.
func (s *server) studyJobs(c *gin.Context) error {
	study, _, _, err := pathUIDs(c)
	if err != nil {
		return err
	}
	tasks, err := s.Work.StudyTasks(c.Request.Context(), study)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, gin.H{"jobs": append([]pipeline.Task{}, tasks...)})
	return nil
}

// jobChange answers POST {study}/jobs/retry and POST {study}/jobs/drop.
func (s *server) jobChange(change func(ctx context.Context, study, destination string) error) func(*gin.Context) error {
	return func(c *gin.Context) error {
		study, _, _, err := pathUIDs(c)
		if err != nil {
			return err
		}
		if err := change(c.Request.Context(), study, c.Query("destination")); err != nil {
			return err
		}
		c.JSON(http.StatusAccepted, gin.H{"study_instance_uid": study})
		return nil
	}
}
