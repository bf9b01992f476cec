-- Segments that nobody has named yet: clusters of customers by what they do, and the few directions
-- in which they differ. Everything here is generated, so the recipe runs anywhere:
-- attune sql -f sql/recipes/05_segments.sql

-- # Four kinds of customers, and a channel that goes with the kind

CREATE OR REPLACE TABLE customers AS
SELECT n AS customer_id, n % 4 AS kind,
       [40.0, 5.0, 12.0, 25.0][n % 4 + 1] + 2 * sin(n * 1.7) AS orders_a_year,
       [18.0, 150.0, 45.0, 90.0][n % 4 + 1] + 6 * sin(n * 2.3) AS basket_eur,
       [0.02, 0.30, 0.10, 0.05][n % 4 + 1] + 0.02 * sin(n * 3.1) AS share_returned,
       CASE WHEN n % 4 < 2 THEN 'app' ELSE 'shop' END AS channel
FROM generate_series(1, 2000) AS s(n);

-- # Clusters

CREATE OR REPLACE MODEL segments OPTIONS (model_type = 'kmeans', num_clusters = 4, seed = 3)
AS SELECT orders_a_year, basket_eur, share_returned, channel FROM customers;

SELECT centroid_id, round(max(CASE WHEN feature = 'orders_a_year' THEN numerical_value END), 1) AS orders_a_year,
    round(max(CASE WHEN feature = 'basket_eur' THEN numerical_value END), 1) AS basket_eur
FROM ML.CENTROIDS(MODEL segments) GROUP BY centroid_id ORDER BY orders_a_year;
-- > The centroids are in the units of the columns: a segment can be read, and named.

SELECT * FROM ML.EVALUATE(MODEL segments);

SELECT customer_id, centroid_id, round(distance, 2) AS distance
FROM ML.PREDICT(MODEL segments, (SELECT * FROM customers WHERE customer_id <= 5)) ORDER BY customer_id;
-- > A new customer is in the segment of the nearest centroid; a large distance says: in none really.

-- # Directions

CREATE OR REPLACE MODEL directions OPTIONS (model_type = 'pca', pca_explained_variance_ratio = 0.9)
AS SELECT orders_a_year, basket_eur, share_returned FROM customers;

SELECT principal_component_id, round(explained_variance_ratio, 3) AS share FROM ML.PRINCIPAL_COMPONENT_INFO(MODEL directions);

SELECT principal_component_id, feature, round(numerical_value, 3) AS weight
FROM ML.PRINCIPAL_COMPONENTS(MODEL directions) ORDER BY principal_component_id, feature;
-- > Who orders often has small baskets and returns little: one direction says most of it.

-- # What has to hold

-- scikit-learn's KMeans, the best of ten starts, on the same numbers: inertia .034713 a row; its PCA: .867142, .092311.
SELECT mean_squared_distance <= 1.0001 * 0.034713 AS holds FROM ML.EVALUATE(MODEL segments);

SELECT abs(explained_variance_ratio - CASE principal_component_id WHEN 1 THEN 0.867142 ELSE 0.092311 END) < 0.00001 AS holds
FROM ML.PRINCIPAL_COMPONENT_INFO(MODEL directions);

SELECT count(DISTINCT kind || ' ' || centroid_id) = 4 AND count(DISTINCT centroid_id) = 4 AS holds
FROM ML.PREDICT(MODEL segments, (SELECT * FROM customers));
-- > Every kind is one segment, with no customer in another.

SELECT davies_bouldin_index < 0.5 AS holds FROM ML.EVALUATE(MODEL segments);

SELECT abs(max(CASE WHEN feature = 'orders_a_year' THEN numerical_value END) - 40) < 0.5 AS holds FROM ML.CENTROIDS(MODEL segments);

SELECT total_explained_variance_ratio >= 0.9 AS holds FROM ML.EVALUATE(MODEL directions);

SELECT abs(p.var - i.eigenvalue) < 0.000001 AS holds
FROM (SELECT var_samp(principal_component_1) AS var FROM ML.PREDICT(MODEL directions, (SELECT * FROM customers))) AS p,
    ML.PRINCIPAL_COMPONENT_INFO(MODEL directions) AS i
WHERE i.principal_component_id = 1;
-- > The variance that a component explains is the variance along it.
